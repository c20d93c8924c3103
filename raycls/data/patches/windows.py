"""The windows that cover a volume, and what each of their voxels weighs (as in nnU-Net, Isensee et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

__all__ = ["corners", "gaussian"]

_DEVIATION = 1 / 8
"""Of a side of the window: the standard deviation of nnU-Net and MONAI."""


def corners(shape: Sequence[int], size: Sequence[int], overlap: float) -> list[tuple[int, ...]]:
    """The first voxel of each window in a volume of `shape`, in the order of the voxels. A side that is not longer than
    the window has one; else they begin and end with the volume, at even distances of `1 - overlap` windows at most."""
    return list(product(*(_along(*sides, overlap) for sides in zip(shape, size, strict=True))))


def gaussian(size: Sequence[int]) -> np.ndarray:
    """The weight of each voxel of a window, `[*size] float32`, 1 in the middle at most."""
    weights = np.ones((), np.float64)
    for side in size:
        away = [(place - (side - 1) / 2) / (side * _DEVIATION) for place in range(side)]
        weights = weights[..., None] * np.array([math.exp(-(each**2) / 2) for each in away])
    return weights.astype(np.float32)


def _along(length: int, side: int, overlap: float) -> list[int]:
    free = max(0, length - side)
    steps = math.ceil(free / max(1, math.floor(side * (1 - overlap))))
    return [(2 * number * free + steps) // (2 * steps) for number in range(steps + 1)] if steps else [0]
