"""Operations that change the voxels of a volume `[C, D, H, W]` and keep its size; axes count slices, rows, columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raycls.data.samples import UnfitError
from raycls.data.volumes.shapes import Function

__all__ = ["flip", "intensity", "noise", "rotate90"]


def flip(image_size: int, *, axes: int | Sequence[int] = (2,), p: float = 0.5) -> Function:
    """Each of `axes` (0: slices, 1: rows, 2: columns) is reversed with probability `p`. Axis 2 exchanges left and
    right, which is another anatomy."""
    chosen, p = _axes(axes, 1, 3), _probability(p)

    def turn(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        turned = [axis + 1 for axis in chosen if _draw(generator) < p]
        return np.flip(volume, tuple(turned)) if turned else volume

    return turn


def rotate90(image_size: int, *, axes: Sequence[int] = (1, 2), p: float = 0.5) -> Function:
    """One, two or three quarter turns in the plane of two `axes`, of equal size, with probability `p`."""
    chosen, p = _axes(axes, 2, 2), _probability(p)

    def rotate(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        sizes = [volume.shape[axis + 1] for axis in chosen]
        if sizes[0] != sizes[1]:
            raise UnfitError(
                "turns sides of different sizes", valid="equal sizes", fix="put a crop or a resize before it"
            )
        if _draw(generator) >= p:
            return volume
        turns = 1 + int(torch.randint(3, (), generator=generator))
        return np.rot90(volume, turns, (chosen[0] + 1, chosen[1] + 1))

    return rotate


def intensity(image_size: int, *, shift: float = 0.1, scale: float = 0.1, p: float = 1.0) -> Function:
    """All voxels times a number in 1 - `scale` to 1 + `scale`, plus one in -`shift` to `shift`, with probability
    `p`."""
    shift, scale, p = _not_negative("shift", shift), _not_negative("scale", scale), _probability(p)

    def change(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        chance, by, plus = (_draw(generator) for _ in range(3))
        if chance >= p:
            return volume
        return volume * np.float32(1 + scale * (2 * by - 1)) + np.float32(shift * (2 * plus - 1))

    return change


def noise(image_size: int, *, std: float = 0.05, p: float = 0.5) -> Function:
    """Normal noise of standard deviation `std` on every voxel, with probability `p`."""
    std, p = _not_negative("std", std), _probability(p)

    def add(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        if _draw(generator) >= p:
            return volume
        return volume + torch.randn(volume.shape, generator=generator).numpy() * np.float32(std)

    return add


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _axes(given: Any, least: int, most: int) -> tuple[int, ...]:
    axes = (given,) if isinstance(given, int) else tuple(given)
    if not least <= len(set(axes)) == len(axes) <= most or not all(
        type(axis) is int and 0 <= axis <= 2 for axis in axes
    ):
        raise ValueError(f"axes are {least if least == most else f'{least} to {most}'} of 0, 1 and 2")
    return axes


def _probability(p: float) -> float:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError("p is a probability, 0 to 1")
    return float(p)


def _not_negative(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} is a number of 0 or more")
    return float(value)
