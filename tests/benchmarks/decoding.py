"""A JPEG file in memory to `[224, 224, 3] uint8` for training, in images per CPU-second: raycls and its peers.

Each variant decodes, crops at random, resizes and flips, one thread, pixels as 8-bit integers; what each draws and how
it resizes is its own. The reference is torchvision's of its training scripts. All variants take turns within one run;
a figure is the median over rounds of the ratio to the reference in the same round. `--before FOLDER` is a checkout of
an older raycls, in a process of its own. The last lines say what bounds it: what libjpeg-turbo takes for entropy
decoding alone (an image of 1/8 of the size) and for all pixels.

    python tests/benchmarks/decoding.py --data FOLDER --before ../old
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures
import torch
from PIL import Image
from torchvision.transforms import v2

SIZE, FORMATS, MOST = 224, ("jpeg",), 10**9
Variant = Callable[[bytes], Any]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with JPEGs (default: 300 are made, 500x375, 93 KB)")
    parser.add_argument("--before", type=Path, help="a checkout of an older raycls")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", type=Path, help="(for itself) answer each line with the CPU-seconds of a round")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.serve:
        return _serve(_files(options.serve))
    result = measure.begin("decoding")
    with tempfile.TemporaryDirectory() as scratch:
        count, rounds = (4, 1) if options.quick else (300, options.rounds)
        folder = options.data or pictures.write_photographs(Path(scratch), count)
        files = _files(folder)
        size = sum(map(len, files)) / len(files)
        measure.say(f"{len(files)} JPEGs of {size / 1000:.0f} KB on average, n = {rounds} rounds")
        result |= {"files": len(files), "mean_bytes": round(size), "variants": _compare(files, folder, rounds, options)}
    return measure.finish(result, options.json)


def _compare(files: list[bytes], folder: Path, rounds: int, options: Any) -> dict[str, Any]:
    timed: dict[str, Callable[[], float]] = {
        name: lambda variant=variant: _seconds(variant, files) for name, variant in _variants().items()
    }
    if (dali := _dali(folder)) is not None:
        timed["DALI, CPU pipeline"] = dali
    before = _before(options.before, folder) if options.before else None
    if before is not None:
        timed["raycls before"] = lambda: _answer(before)
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(-1, rounds):  # one to warm up
        for name in list(timed)[:: 1 if turn % 2 else -1]:
            seconds = timed[name]()
            if turn >= 0:
                taken[name].append(seconds)
    if before is not None:
        before.communicate()
    found: dict[str, Any] = {}
    for name, seconds in sorted(taken.items(), key=lambda item: statistics.median(item[1])):
        speed = measure.ratios(list(zip(taken["torchvision's reference"], seconds, strict=True)))
        against = {"torchvision's reference": speed}
        if before is not None:
            against["raycls before"] = measure.ratios(list(zip(taken["raycls before"], seconds, strict=True)))
        milliseconds = 1000 * statistics.median(seconds) / len(files)
        found[name] = {"ms_per_image": round(milliseconds, 4), "images_per_cpu_second_against": against}
        compared = ", ".join(f"{measure.spread(value)} of {other}" for other, value in against.items())
        measure.say(f"{name:34} {milliseconds:6.3f} ms, {1000 / milliseconds:5.0f} images per CPU-second; {compared}")
    return found


def _seconds(variant: Variant, files: list[bytes]) -> float:
    began = measure.this_thread()
    for data in files:
        variant(data)
    return measure.this_thread() - began


def _variants() -> dict[str, Variant]:
    reference = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    variants: dict[str, Variant] = {
        "torchvision's reference": lambda data: reference(Image.open(io.BytesIO(data)).convert("RGB")),
        **_raycls(),
        "torchvision.io + v2": _torchvision_io(),
    }
    for make in (_timm, _opencv):
        try:
            variants |= make()
        except ImportError as error:
            measure.say(f"not installed: {error.name}")
    import simplejpeg

    variants["(bound) entropy decoding"] = lambda data: simplejpeg.decode_jpeg(
        data, "RGB", min_height=1, min_width=1, min_factor=8
    )
    variants["(bound) all pixels"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    return variants


def _raycls() -> dict[str, Variant]:
    """As the task classification does it, with the split and the augmentation of whichever raycls is imported."""
    from raycls.data.images import operations
    from raycls.data.source import Keys, Split

    class Held:
        """A reader of one file in memory."""

        data = b""

        def read(self, index: int) -> bytes:
            return self.data

    reader, drawn = Held(), iter(range(2**62))
    split = Split("train", ("a", "b"), np.zeros(1, np.int64), Keys(["x.jpg"]), reader, FORMATS, MOST)

    def variant(resampling: str) -> Variant:
        first = {"random_resized_crop": {"resampling": "fast"}} if resampling == "fast" else "random_resized_crop"
        augment = operations.build((first, "horizontal_flip"), train=True, image_size=SIZE)
        opened = split.encoded if resampling == "fast" else getattr(split, "pixels", split.image)

        def made(data: bytes) -> Any:
            reader.data = data
            return augment(opened(0), (0, 0, next(drawn)))

        return made

    if not hasattr(split, "encoded"):
        return {"raycls": variant("exact")}
    return {"raycls": variant("exact"), "raycls, resampling: fast": variant("fast")}


def _torchvision_io() -> Variant:
    from torchvision.io import ImageReadMode, decode_jpeg

    warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision", DeprecationWarning)
    augment = v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()])

    def made(data: bytes) -> Any:
        return augment(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB))

    return made


def _timm() -> dict[str, Variant]:
    from timm.data.transforms_factory import transforms_imagenet_train

    augment: Any = transforms_imagenet_train(SIZE, color_jitter=None, interpolation="bilinear", use_prefetcher=True)
    return {"timm": lambda data: augment(Image.open(io.BytesIO(data)).convert("RGB"))}


def _opencv() -> dict[str, Variant]:
    import cv2

    cv2.setNumThreads(1)
    crop = v2.RandomResizedCrop(SIZE)

    def variant(interpolation: int) -> Variant:
        def made(data: bytes) -> Any:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            box = crop.make_params([torch.from_numpy(image).permute(2, 0, 1)])
            part = image[box["top"] : box["top"] + box["height"], box["left"] : box["left"] + box["width"]]
            small = cv2.resize(part, (SIZE, SIZE), interpolation=interpolation)
            return cv2.flip(small, 1) if torch.rand(1) < 0.5 else small

        return made

    return {"OpenCV, by area": variant(cv2.INTER_AREA), "OpenCV, not antialiased": variant(cv2.INTER_LINEAR)}


def _dali(folder: Path) -> Callable[[], float] | None:
    """A round in a pipeline of one thread; the CPU-seconds are those of the process, as its threads are its own."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError:
        measure.say("not installed: nvidia.dali")
        return None
    names = [str(path) for path in _paths(folder)]
    batch = next(size for size in range(min(60, len(names)), 0, -1) if len(names) % size == 0)

    @pipeline_def(batch_size=batch, num_threads=1, device_id=None, seed=1)
    def pipeline() -> Any:
        encoded, _ = fn.readers.file(files=names)
        part = fn.decoders.image_random_crop(encoded, device="cpu", random_area=[0.08, 1.0])
        small = fn.resize(part, size=(SIZE, SIZE), interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(small, horizontal=fn.random.coin_flip())

    built = pipeline()
    built.build()

    def seconds() -> float:
        began = time.process_time()
        for _ in range(len(names) // batch):
            built.run()
        return time.process_time() - began

    return seconds


def _before(checkout: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder)],
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def _serve(files: list[bytes]) -> dict[str, Any]:
    variant = _raycls()["raycls"]
    for _ in sys.stdin:
        print(json.dumps(_seconds(variant, files)), flush=True)
    return {}


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def _files(folder: Path) -> list[bytes]:
    files = [path.read_bytes() for path in _paths(folder)]
    if not files:
        raise SystemExit(f"there is no JPEG in {folder}")
    return files


if __name__ == "__main__":
    main()
