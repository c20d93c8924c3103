"""Packed images and files, from where they are stored to a `[224, 224, 3] uint8` for training, per CPU-second.

The reference is torchvision's transform of its classification recipe on the original files: Pillow opens and decodes,
`RandomResizedCrop(224)`, `RandomHorizontalFlip`, `PILToTensor`. `files` is what raycls does with the same files; the
others are the same files packed by `raycls pack` (Arrow and Parquet; JPEG of quality 90 and raw pixels, 256 pixels),
read at random places. `fast` is with `random_resized_crop: {resampling: fast}`. `without reading` augments pixels that
are in memory already: what no reader can be faster than. All are one thread of this process and take turns; CPU-seconds
are those of the thread.

    python tests/benchmarks/packed.py --data FOLDER
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures
import torch
from PIL import Image
from torchvision.transforms import v2

from raycls.config.load import from_dict
from raycls.data.images import operations
from raycls.data.source import Split, open_dataset
from raycls.session.packing.pack import Request, pack

VARIANTS = [(form, quality) for quality in (90, 0) for form in ("arrow", "parquet")]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    torch.set_num_threads(1)
    result = measure.begin("packed")
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or pictures.write_photographs(Path(scratch) / "photographs", 16 if options.quick else 300)
        variants = _variants(Path(data), Path(scratch), options.size, result)
        rounds: dict[str, list[float]] = {name: [] for name in variants}
        for one in variants.values():
            one(-1)
        for turn in range(options.rounds):
            for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
                start = measure.this_thread()
                count = variants[name](turn)
                rounds[name].append(count / (measure.this_thread() - start))
    result["variants"] = {}
    for name, rates in rounds.items():
        against = measure.ratios(list(zip(rates, rounds["reference"], strict=True)))
        rate = round(float(np.median(rates)), 1)
        result["variants"][name] = {"images_per_cpu_second": rate, "against_reference": against}
        measure.say(f"{name:22} {rate:8.1f} images per CPU-second; {measure.spread(against)} of the reference")
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with JPEGs (default: 300 are made, 500x375, 93 KB)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="pixels, height and width")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.size = 1, 32
    return options


def _variants(data: Path, scratch: Path, size: int, result: dict[str, Any]) -> dict[str, Callable[[int], int]]:
    """What each variant does with all images in a turn; it says how many there were."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    listed = scratch / "listed.csv"
    with open(listed, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label"])
        rows.writerows([str(path), "ab"[index % 2]] for index, path in enumerate(files))
    weight = sum(path.stat().st_size for path in files) / len(files)
    result["data"] = {"files": len(files), "mean_bytes": round(weight), "packed": {}}
    measure.say(f"{len(files)} JPEGs of {weight / 1000:.0f} KB on average, cropped and resized to {size}")
    config = {"split": {"train": 1, "val": 0, "test": 0}, "source": {"name": "manifest", "path": str(listed)}}
    run = from_dict({"data": config, "evaluate": {"every": "off"}})
    transform = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    augment = operations.build(None, train=True, image_size=size)
    quick: tuple[Any, ...] = ({"random_resized_crop": {"resampling": "fast"}}, "horizontal_flip")
    fast = operations.build(quick, train=True, image_size=size)
    order = np.random.RandomState(0).permutation(len(files))

    def reference(turn: int) -> int:
        for path in files:
            with Image.open(path) as image:
                transform(image.convert("RGB"))
        return len(files)

    variants: dict[str, Callable[[int], int]] = {"reference": reference}
    whole = open_dataset(run.data).splits["train"]
    variants |= {"files": _made(whole, augment, order), "files, fast": _made(whole, fast, order)}
    for form, quality in VARIANTS:
        folder = scratch / f"{form}-{quality}"
        found = pack(run, Request(str(folder), form, 256, quality), join=_nobody, say=measure.say)
        name = f"{form} {'JPEG' if quality else 'raw'}"
        result["data"]["packed"][name] = found.manifest["bytes_after"]
        source = {"source": {"name": "packed", "path": str(folder)}, "split": config["split"]}
        split = open_dataset(from_dict({"data": source}).data).splits["train"]
        variants[name] = _made(split, augment, order)
        if form == "arrow":
            variants[f"{name}, fast"] = _made(split, fast, order)
    held = [np.array(split.pixels(index)) for index in range(len(split))]
    variants |= {"without reading": _held(held, augment), "without reading, fast": _held(held, fast)}
    return variants


def _made(split: Split, augment: operations.Augment, order: np.ndarray) -> Callable[[int], int]:
    def made(turn: int) -> int:
        for index in order.tolist():
            augment(split.encoded(index) if augment.encoded else split.pixels(index), (0, turn + 1, index))
        return len(order)

    return made


def _held(images: Sequence[np.ndarray], augment: operations.Augment) -> Callable[[int], int]:
    def made(turn: int) -> int:
        for index, image in enumerate(images):
            augment(image, (0, turn + 1, index))
        return len(images)

    return made


def _nobody(*_: object) -> Any:
    raise RuntimeError("no cluster is asked for")


if __name__ == "__main__":
    main()
