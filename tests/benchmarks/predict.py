"""`raycls predict` beside a plain PyTorch loop on the same JPEG files: images per second, on this machine without Ray.

The plain program is the one that is written by hand: Pillow, a `DataLoader` with a process per core, `torch.no_grad`,
softmax, top 5, a CSV file. It takes of raycls the network with its weights. Its loop computes with a thread per core;
raycls has a process per core with one thread each. Both decode, resize to 256, crop 224 and write one row per image, in
batches of 32.

Measured is from the moment when each process has done its first piece of work to the last row; what comes before is
start-up (imports, processes, the network) and reported beside it. A ratio is rate of raycls by rate of the plain loop.

    python tests/benchmarks/predict.py --data FOLDER --models tiny_cnn resnet18
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from raycls.config.load import load_text
from raycls.launch import trainer
from raycls.progress import Progress, listening
from raycls.screen.run import Display
from raycls.session.predictions.predict import Request, predict
from raycls.session.trained.trained import build_network, open_trained

_CONFIG = """
run: {{name: {model}, storage: {storage}}}
data: {{source: {{path: {data}}}, image_size: {size}, batch_size: 32}}
augment: {{eval: [{{resize: {{size: {larger}}}}}, {{center_crop: {{size: {size}}}}}]}}
model: {{name: {model}}}
train: {{duration: 1st, amp: "off"}}
evaluate: {{every: "off"}}
scale: {{workers: 0, threads: 1}}
"""
_BATCH = 32
Run = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, help="folder of two or more classes of JPEGs (default: 300 are made, 93 KB)"
    )
    parser.add_argument("--images", type=int, default=6000, help="images of one turn: the files again and again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="pixels, height and width")
    parser.add_argument("--models", nargs="+", default=["tiny_cnn"], help="networks with random weights")
    options = parser.parse_args(argv)
    if options.quick:
        options.images, options.rounds, options.size = 96, 1, 32
    result = {**measure.begin("predict"), "models": {}}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        data = options.data or pictures.write_photographs(home / "photographs", 64 if options.quick else 300)
        files = sorted(str(file.resolve()) for file in data.rglob("*") if file.is_file())
        listed = [files[row % len(files)] for row in range(options.images)]
        (home / "list.csv").write_text("path\n" + "".join(f"{file}\n" for file in listed))
        for model in options.models:
            result["models"][model] = _compare(home, model, data, listed, options)
    return measure.finish(result, options.json)


def _compare(home: Path, model: str, data: Path, listed: list[str], options: Any) -> dict[str, Any]:
    text = _CONFIG.format(model=model, storage=home, data=data, size=options.size, larger=options.size * 8 // 7)
    trainer.train(load_text(text, "benchmark").run, display=Display(io.StringIO()))
    variants: dict[str, Callable[[], Run]] = {
        "raycls": lambda: _raycls(home, model),
        "plain": lambda: _plain(home, model, listed, options.size),
    }
    found: dict[str, list[Run]] = {name: [] for name in variants}
    for turn in range(options.rounds):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(variants[name]())
    rates = {name: [run["images"] / run["seconds"] for run in runs] for name, runs in found.items()}
    ratio = measure.ratios(list(zip(rates["raycls"], rates["plain"], strict=True)))
    same = np.mean(
        [one == other for one, other in zip(*(_answers(home / f"{name}.csv") for name in variants), strict=True)]
    )
    shown = ", ".join(
        f"{name} {np.median(rates[name]):.0f} images/s after {np.median([run['start'] for run in runs]):.1f} s"
        for name, runs in found.items()
    )
    measure.say(f"{model:12} {shown}; ratio {measure.spread(ratio)}; same class in {same:.2%}")
    return {"ratio": ratio, "runs": found, "same_class": float(same)}


def _raycls(home: Path, model: str) -> Run:
    heard: list[tuple[float, int]] = []

    def listen(now: Progress) -> None:
        if now.phase == "predicting" and now.done:
            heard.append((time.perf_counter(), now.done))

    def no_ray(*_: object) -> Any:
        raise RuntimeError("this is measured without Ray")

    began = time.perf_counter()
    request = Request(str(home / model), (str(home / "list.csv"),), str(home / "raycls.csv"), force=True)
    with listening(listen):
        found = predict(request, join=no_ray, say=lambda text: None)
    return _run(began, heard, _cores() if found.work.parts > 1 else 1)


class _Files(Dataset):
    """What a program of one's own has: a list of files, opened by Pillow."""

    def __init__(self, files: Sequence[str], size: int) -> None:
        self._files, self._size = files, size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> torch.Tensor:
        image = Image.open(self._files[row]).convert("RGB")
        scale = self._size * 8 // 7 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - self._size) // 2, (image.height - self._size) // 2
        image = image.crop((left, top, left + self._size, top + self._size))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _plain(home: Path, model: str, files: Sequence[str], size: int) -> Run:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(_cores())
    torch.use_deterministic_algorithms(False)
    began = time.perf_counter()
    trained = open_trained(str(home / model))
    augment = trained.run.augment
    network, _ = build_network(trained.run, trained.folder, trained.classes, trained.weights, torch.device("cpu"))
    network.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (augment.mean, augment.std))
    loader = DataLoader(_Files(files, size), batch_size=_BATCH, num_workers=_cores())
    heard: list[tuple[float, int]] = []
    done = 0
    with open(home / "plain.csv", "w", newline="") as stream, torch.no_grad():
        writer = csv.writer(stream)
        writer.writerow(["path", "predicted", "confidence"])
        for images in loader:
            top = network((images.float() / 255 - mean) / std).softmax(1).topk(min(5, len(trained.classes)))
            for row, (classes, values) in enumerate(zip(top.indices.tolist(), top.values.tolist(), strict=True)):
                writer.writerow([files[done + row], trained.classes[classes[0]], *classes, *values])
            done += len(images)
            heard.append((time.perf_counter(), done))
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    return _run(began, heard, 1)


def _run(began: float, heard: list[tuple[float, int]], first: int) -> Run:
    """What was done after `first` pieces of work, in how many seconds, and when that was."""
    mark = heard[min(first - 1, len(heard) - 2)] if len(heard) > 1 else (began, 0)
    seconds = time.perf_counter() - mark[0]
    return {"images": heard[-1][1] - mark[1], "seconds": seconds, "start": mark[0] - began}


def _answers(file: Path) -> list[str]:
    with open(file, newline="") as stream:
        return [row["predicted"] for row in csv.DictReader(stream)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
