"""Image files of 16 bits, and of grey values, in folders that a run can train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["HIGH", "write_bands", "write_deep"]

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


def write_bands(folder: Path, train: int = 24, val: int = 8, channels: int = 5, size: int = 12) -> Path:
    """A manifest of `.npy` files `[H, W, channels] uint16` of two classes, which differ in the low bytes of the last
    channel alone."""
    draw = np.random.default_rng(1)
    lines = ["path,label,split"]
    (folder / "bands").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            label = index % 2
            values = draw.integers(0, 65536, (size, size, channels))
            values[..., -1] = HIGH + 96 * label + draw.integers(0, 96, (size, size))
            name = f"bands/{split}{index:02d}.npy"
            np.save(folder / name, values.astype(np.uint16))
            lines.append(f"{name},{('dry', 'wet')[label]},{split}")
    (folder / "bands.csv").write_text("\n".join(lines) + "\n")
    return folder / "bands.csv"
