"""configs/cifar10_small.yaml in plain PyTorch, and with `--raycls` beside `raycls train` on the same JPEG files.

The plain program has its own data set (Pillow, torchvision's transforms), a `DataLoader` with two processes, and the
loop one writes by hand; of raycls it takes the network's class. The recipe is read from the same file. Two threads
compute, where raycls has two Ray workers with one thread each. Wall time is compared from a mark (step 50, or half of
a shorter run) to the end of the last evaluation: the same work on both sides. What comes before the mark, without the
steps' share of it, is start-up and reported beside it.

    python tests/benchmarks/cifar.py FOLDER --raycls
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from raycls.models.networks.tiny import tiny_cnn

CONFIG = Path(__file__).parents[2] / "configs" / "cifar10_small.yaml"


@dataclass(frozen=True)
class Recipe:
    """What the config says, as plain numbers."""

    batch: int
    width: int
    lr: float
    weight_decay: float
    warmup_epochs: float
    epochs: int
    padding: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, epochs: int | None, width: int | None = None) -> Recipe:
        config = yaml.safe_load(CONFIG.read_text())
        optim, augment = config["optim"], config["augment"]
        assert optim["name"] == "sgd" and optim["args"]["nesterov"] and optim["weight_decay_on"] == "weights", optim
        assert config["schedule"]["name"] == "cosine" and config["model"]["name"] == "tiny_cnn"
        return cls(
            batch=config["data"]["batch_size"],
            width=width or config["model"]["args"]["width"],
            lr=float(optim["lr"]),
            weight_decay=float(optim["weight_decay"]),
            warmup_epochs=float(config["schedule"]["warmup"].removesuffix("ep")),
            epochs=epochs or int(config["train"]["duration"].removesuffix("ep")),
            padding=augment["train"][0]["random_crop"]["padding"],
            mean=tuple(augment["mean"]),
            std=tuple(augment["std"]),
        )


class Pictures(Dataset[tuple[Tensor, int]]):
    """`folder/<class>/<file>`; an item is `[3, H, W] uint8` and the number of its class."""

    def __init__(self, folder: Path, transform: v2.Transform) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        self.items: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes):
            self.items += [(path, label) for path in sorted((folder / name).iterdir())]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.items[index]
        with Image.open(path) as image:
            made = self.transform(image.convert("RGB"))
        return torch.from_numpy(np.array(made)).permute(2, 0, 1), label


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    recipe = Recipe.read(options.epochs, options.width)
    result = {**measure.begin("cifar"), "epochs": recipe.epochs, "plain": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if options.quick:
            folder = pictures.write_folder(Path(scratch) / "images", {"train": 40, "test": 20})
            recipe = Recipe(**{**vars(recipe), "batch": 16, "width": 8})
        pairs: list[tuple[float, float]] = []
        for seed in options.seeds:
            plain = _plain(folder, recipe, seed, options.threads)
            result["plain"].append(plain)
            _tell("plain PyTorch", seed, plain)
            if options.raycls:
                ours = _raycls(folder, recipe, seed, options.workers, Path(scratch))
                result.setdefault("raycls", []).append(ours)
                _tell("raycls", seed, ours)
                pairs.append((ours["seconds_after_the_mark"], plain["seconds_after_the_mark"]))
    if pairs:
        _compare(result, pairs)
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="holds train/<class> and test/<class>")
    parser.add_argument("--raycls", action="store_true", help="run raycls on it too, and compare")
    parser.add_argument("--epochs", type=int, help="default: those of the config")
    parser.add_argument("--width", type=int, help="of the network; default: that of the config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2, help="of the plain loop")
    parser.add_argument("--workers", type=int, default=2, help="Ray workers of raycls, one thread each")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs, options.raycls, options.threads = 1, False, 1
    elif options.folder is None:
        parser.error("name the folder with the images")
    return options


def _plain(folder: Path, recipe: Recipe, seed: int, threads: int) -> dict[str, Any]:
    """Train and evaluate after each epoch, with nothing but PyTorch."""
    began = time.perf_counter()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, test = _loaders(folder, recipe)
    model = tiny_cnn(len(train.dataset.classes), width=recipe.width).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    optimizer = _optimizer(model, recipe)
    per_epoch = len(train)
    total = recipe.epochs * per_epoch
    warmup, mark = round(recipe.warmup_epochs * per_epoch), _mark(total)
    step, marked, accuracy = 0, began, 0.0
    for _ in range(recipe.epochs):
        model.train()
        for images, labels in train:
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _factor(step, warmup, total)
            with _autocast():
                logits = model(_normalised(images, recipe))
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == mark:
                marked = time.perf_counter()
        accuracy = _accuracy(model, test, recipe)
    ended = time.perf_counter()
    return _figures(seed, accuracy, marked - began, ended - marked, mark, total)


def _loaders(folder: Path, recipe: Recipe) -> tuple[DataLoader[Any], DataLoader[Any]]:
    augmented = v2.Compose([v2.RandomCrop(32, padding=recipe.padding), v2.RandomHorizontalFlip()])
    common: dict[str, Any] = {"batch_size": recipe.batch, "num_workers": 2, "persistent_workers": True}
    train = DataLoader(Pictures(folder / "train", augmented), shuffle=True, **common)
    return train, DataLoader(Pictures(folder / "test", v2.CenterCrop(32)), **common)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)


def _factor(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


def _normalised(images: Tensor, recipe: Recipe) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (recipe.mean, recipe.std))
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255).sub_(mean).div_(std)


def _autocast() -> Any:
    """bf16 where the CPU has it natively, as raycls's `train.amp: auto`."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast("cpu", dtype=torch.bfloat16) if native else nullcontext()


@torch.no_grad()
def _accuracy(model: nn.Module, loader: DataLoader[Any], recipe: Recipe) -> float:
    model.eval()
    correct = count = 0
    for images, labels in loader:
        with _autocast():
            found = model(_normalised(images, recipe)).argmax(1)
        correct += int((found == labels).sum())
        count += len(labels)
    return correct / count


def _raycls(folder: Path, recipe: Recipe, seed: int, workers: int, scratch: Path) -> dict[str, Any]:
    """`raycls train` on the same files, in a process of its own."""
    name = f"cifar-{seed}"
    images = sum(1 for _ in (folder / "train").glob("*/*"))
    total = recipe.epochs * -(-images // recipe.batch)
    mark = _mark(total)
    words = [
        f"data.source.path={folder.resolve()}",
        f"run.storage={scratch}",
        f"run.name={name}",
        f"run.seed={seed}",
        f"scale.workers={workers}",
        f"model.args.width={recipe.width}",
        f"train.duration={recipe.epochs}ep",
        f"track.log_every={mark}st",
    ]
    began = time.time()
    subprocess.run([sys.executable, "-m", "raycls", "train", str(CONFIG), *words], check=True)
    command = time.time() - began
    records = list(_records(scratch / name / "history.jsonl"))
    marked = next(record["time"] for record in records if record["kind"] == "train" and record["step"] == mark)
    last = [record for record in records if record["kind"] == "evaluate"][-1]
    figures = _figures(seed, last["top1"], marked - began, last["time"] - marked, mark, total)
    return {**figures, "command_seconds": round(command, 2)}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)


def _mark(total: int) -> int:
    """The step from which on wall time is compared."""
    return max(1, min(50, total // 2))


def _figures(seed: int, accuracy: float, before: float, after: float, mark: int, total: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "test_accuracy": accuracy,
        "seconds_to_the_mark": round(before, 2),
        "seconds_after_the_mark": round(after, 2),
        "start_up_seconds": round(max(0.0, before - after * mark / max(1, total - mark)), 2),
        "mark": mark,
        "steps": total,
    }


def _tell(name: str, seed: int, found: dict[str, Any]) -> None:
    measure.say(
        f"{name}, seed {seed}: test accuracy {found['test_accuracy']:.4f}, {found['seconds_after_the_mark']:.1f} s for "
        f"steps {found['mark'] + 1} to {found['steps']} with evaluations, start-up {found['start_up_seconds']:.1f} s"
    )


def _compare(result: dict[str, Any], pairs: Sequence[tuple[float, float]]) -> None:
    ours, plain = (
        sum(found["test_accuracy"] for found in result[name]) / len(result[name]) for name in ("raycls", "plain")
    )
    result["accuracy_difference_points"] = round(100 * (ours - plain), 2)
    result["wall_raycls_against_plain"] = wall = measure.ratios(pairs)
    measure.say(
        f"raycls against plain: accuracy {100 * (ours - plain):+.2f} points, wall {measure.spread(wall)}, "
        "start-up apart"
    )


if __name__ == "__main__":
    main()
