"""Image files of 16 bits, and of grey values, in folders that a run can train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["HIGH", "write_deep"]

HIGH = 0x4000
"""What the values of `write_deep` have in common: their high byte says nothing."""


def write_deep(folder: Path, train: int = 24, val: int = 8, size: int = 12) -> dict[str, np.ndarray]:
    """16-bit grey PNG files, in folders for splits and two classes, whose values differ in the low byte alone: below
    96 is one class, from there to 191 the other. Their pixels `[H, W] uint16` by the path below `folder`."""
    draw = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            label = index % 2
            values = (HIGH + 96 * label + draw.integers(0, 96, (size, size))).astype(np.uint16)
            path = folder / split / ("dark", "light")[label] / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
            found[str(path.relative_to(folder))] = values
    return found
