"""Volumes in one orientation and, where asked for, at one spacing.

The orientation is LPS whatever the format: `[D, H, W]` go to superior, posterior and left, so a slice looks as
radiologists look at it, from the feet with the front on top. Axes are exchanged and reversed and no voxel is
computed anew: the axes of an oblique or tilted volume are those that are nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

__all__ = [
    "RAS_TO_LPS",
    "as_stored",
    "at_spacing",
    "changed",
    "layout_of",
    "nearest",
    "oriented",
    "resampled",
    "resized",
    "spacing_of",
]

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
"""By which the coordinates of NIfTI (to right, anterior, superior) are multiplied for those of DICOM."""

_AXES = (2, 1, 0)
"""The coordinate (0: left, 1: posterior, 2: superior) that each axis of `[D, H, W]` follows."""
_TIE = 1e-3
"""Cosines that differ by less are equal: the two formats round the same geometry in two ways."""


def layout_of(directions: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How the axes of an array become `[D, H, W]`: `(order, reversed)` for `transpose`, and then for `flip`.

    Column `n` of `directions` `[3, 3]` is the way in mm (left, posterior, superior) of one step along axis `n`.
    """
    cosines = directions / np.linalg.norm(directions, axis=0)
    best, order = -1.0, (0, 1, 2)
    for candidate in permutations(range(3)):
        found = sum(abs(cosines[way, axis]) for way, axis in zip(_AXES, candidate, strict=True))
        if found > best + _TIE:
            best, order = found, candidate
    flips = tuple(place for place, axis in enumerate(order) if cosines[_AXES[place], axis] < 0)
    return order, flips


def oriented(voxels: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """`voxels` as `[D, H, W]`, contiguous; `directions` as in `layout_of`."""
    order, flips = layout_of(directions)
    return np.ascontiguousarray(np.flip(voxels.transpose(order), flips))


def as_stored(volume: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """`oriented` undone: `volume` `[D, H, W]` with the axes of its file, contiguous."""
    order, flips = layout_of(directions)
    return np.ascontiguousarray(np.flip(volume, flips).transpose(np.argsort(order)))


def spacing_of(directions: np.ndarray) -> tuple[float, ...]:
    """The lengths in mm of one step along each axis of `[D, H, W]`."""
    lengths = np.linalg.norm(directions, axis=0)
    return tuple(float(lengths[axis]) for axis in layout_of(directions)[0])


def resampled(voxels: np.ndarray, spacing: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """`voxels` `[..., D, H, W] float32` of `spacing` at the spacing `wanted`: as many voxels as are nearest."""
    return changed(voxels, *at_spacing(voxels.shape, spacing, wanted))


def at_spacing(
    shape: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]
) -> tuple[list[int], list[float]]:
    """How many voxels `[..., D, H, W]` have at the spacing `wanted`, and how many old ones each new one goes."""
    found = zip(shape[-3:], spacing, wanted, strict=True)
    sizes = [max(1, round(size * have / want)) for size, have, want in found]
    return sizes, [want / have for have, want in zip(spacing, wanted, strict=True)]


def resized(voxels: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """`voxels` `[..., D, H, W] float32` with the last three axes of these `sizes`."""
    steps = [size / new for size, new in zip(voxels.shape[-3:], sizes, strict=True)]
    return changed(voxels, sizes, steps)


def nearest(voxels: np.ndarray, sizes: Sequence[int], steps: Sequence[float]) -> np.ndarray:
    """`voxels` `[..., D, H, W]` with the last three axes of these `sizes`, each voxel as it is at the nearest place;
    `steps` are how many old voxels one new voxel goes, along each axis."""
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True), voxels.ndim - 3):
        count = voxels.shape[axis]
        if (count, step) != (size, 1.0):
            places = np.floor(_centres(count, size, step) + 0.5).astype(np.int64)
            voxels = np.take(voxels, np.clip(places, 0, count - 1), axis)
    return np.ascontiguousarray(voxels)


def _centres(count: int, size: int, step: float) -> np.ndarray:
    """Where the middles of `size` new voxels lie among `count` old ones; the middle of all stays where it is."""
    return ((count - 1) + (np.arange(size) * 2 - (size - 1)) * step) / 2


def changed(voxels: np.ndarray, sizes: Sequence[int], steps: Sequence[float]) -> np.ndarray:
    """`voxels` `[..., D, H, W] float32` with the last three axes of these `sizes`, by linear interpolation; `steps` as
    in `nearest`."""
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True), voxels.ndim - 3):
        if (voxels.shape[axis], step) != (size, 1.0):
            voxels = _along(voxels, axis, size, step)
    return np.ascontiguousarray(voxels)


def _along(voxels: np.ndarray, axis: int, size: int, step: float) -> np.ndarray:
    """Linear interpolation along one axis; where it makes fewer, a triangle as wide as a step, as Pillow does.

    The products are added up in the order of the voxels, without BLAS: the same bits with any number of threads.
    """
    count, width = voxels.shape[axis], max(1.0, step)
    centres = _centres(count, size, step)
    first = np.floor(centres - width).astype(np.int64) + 1
    taps = int(np.ceil(2 * width)) + 1
    places = first[:, None] + np.arange(taps)
    weights = np.clip(1 - np.abs(places - centres[:, None]) / width, 0, None)
    inside = (places >= 0) & (places < count)
    outside = weights.sum(1) > 0
    weights = np.where(inside, weights, 0)
    empty = (weights.sum(1) == 0) & outside  # beyond the border: the nearest voxel
    weights[empty, 0] = 1
    places = np.where(empty[:, None], np.clip(np.round(centres), 0, count - 1).astype(np.int64)[:, None], places)
    places = np.clip(places, 0, count - 1)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    shape = [1] * voxels.ndim
    shape[axis] = size
    result = np.zeros((*voxels.shape[:axis], size, *voxels.shape[axis + 1 :]), np.float32)
    for tap in range(taps):
        if weights[:, tap].any():
            result += np.take(voxels, places[:, tap], axis) * weights[:, tap].reshape(shape)
    return result
