"""A trained run on real image files, which all tests of what follows a training share."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from raycls.config.load import load_text
from raycls.launch import trainer
from raycls.screen.run import Display

__all__ = ["CLASSES", "CONFIG", "make_trained", "write_photos"]

CLASSES = ("circle", "square", "stripes")

CONFIG = """
run: {name: shapes}
data:
  source: {path: photos}
  image_size: 24
  batch_size: 16
  split: {train: 0.6, val: 0.2, test: 0.2}
augment:
  train: [{resize: {size: 28}}, {random_crop: {size: 24}}, horizontal_flip]
  eval: [{resize: {size: 28}}, {center_crop: {size: 24}}]
  mean: [0.4, 0.5, 0.6]
  std: [0.2, 0.25, 0.3]
model: {name: tiny_cnn, args: {width: 8}}
optim: {name: adamw, lr: 3e-3}
train: {duration: 6ep, amp: "off"}
scale: {workers: 0, threads: 1}
"""


def write_photos(folder: Path, count: int, seed: int = 0) -> None:
    """`count` JPEG and PNG files of each class, of many sizes, in a folder per class: shapes that a net can tell
    apart, most of the time."""
    draw = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            height, width = (int(size) for size in draw.integers(30, 64, 2))
            pixels = _shape(number, height, width, draw)
            image = Image.fromarray(pixels)
            kind = "png" if index % 4 == 0 else "jpg"
            image.save(folder / name / f"{index:03d}.{kind}", **({} if kind == "png" else {"quality": 90}))


def _shape(number: int, height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) * draw.uniform(0.2, 0.45)
    across, down = x - width / 2, y - height / 2
    inside = (across**2 + down**2 < radius**2, np.maximum(abs(across), abs(down)) < radius, x // 6 % 2 == 0)[number]
    back, front = draw.integers(0, 256, (2, 3))
    noise = draw.normal(0, 30, (height, width, 3))
    return np.clip(np.where(inside[..., None], front, back) + noise, 0, 255).astype(np.uint8)


def make_trained(home: Path) -> Path:
    """A working directory with `photos/` (40 files a class) and the finished run `runs/shapes`."""
    write_photos(home / "photos", 40)
    (home / "shapes.yaml").write_text(CONFIG)
    before = os.getcwd()
    os.chdir(home)
    try:
        trainer.train(load_text(CONFIG, "shapes.yaml").run, display=Display(io.StringIO()))
    finally:
        os.chdir(before)
    return home
