"""JPEG files to measure with, where no data set is at hand: photographs in size and weight, though not in content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_folder", "write_photographs"]


def write_photographs(folder: Path, count: int, *, width: int = 500, height: int = 375, quality: int = 90) -> Path:
    """`count` JPEGs of about 100 KB in `folder/<one of two classes>`: noise of several scales, so that they have edges
    and fine grain as a photograph does. Returns `folder`."""
    random = np.random.RandomState(0)
    for index in range(count):
        layers = np.zeros((height, width, 3), np.float32)
        for scale, strength in ((4, 90), (16, 55), (64, 30), (height, 26)):
            shape = max(2, height * scale // height), max(2, width * scale // height)
            coarse = Image.fromarray(random.randint(0, 256, (*shape, 3), dtype=np.uint8))
            layers += (np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128) * (
                strength / 128
            )
        _save(folder, index, np.clip(layers + 128, 0, 255).astype(np.uint8), quality)
    return folder


def write_folder(folder: Path, counts: dict[str, int], *, size: int = 32) -> Path:
    """Small JPEGs in `folder/<split>/<class>`, `counts` per split, over ten classes of different brightness."""
    random = np.random.RandomState(1)
    for split, count in counts.items():
        for index in range(count):
            pixels = random.randint(0, 128, (size, size, 3)) + 12 * (index % 10)
            path = folder / split / f"class{index % 10}"
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path / f"{index:06}.jpg", quality=90)
    return folder


def _save(folder: Path, index: int, pixels: np.ndarray, quality: int) -> None:
    path = folder / "ab"[index % 2]
    path.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path / f"{index:05}.jpg", quality=quality)
