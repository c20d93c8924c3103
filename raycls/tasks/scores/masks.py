"""How well one mask agrees with another: overlap, and distances of their surfaces in millimetres.

Empty masks follow one rule. Where both are empty there is nothing to find and nothing was found: NaN, which means of
several cases leave out. Where one is empty the overlap is 0 and a distance infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Overlap", "average_surface_distance", "hausdorff95", "overlap", "surface", "surface_distances"]


class Overlap(NamedTuple):
    """Shares of two masks that are common to both, in 0..1."""

    dice: float
    """Twice the common voxels, by the voxels of both (Dice 1945)."""
    iou: float
    """The common voxels, by those of either (Jaccard 1901)."""


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    """Dice and intersection over union of two masks of one shape, booleans."""
    _check(truth, predicted)
    both, either = int((truth & predicted).sum()), int((truth | predicted).sum())
    if not either:
        return Overlap(float("nan"), float("nan"))
    return Overlap(2 * both / (both + either), both / either)


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask that touch, by a side, one that is outside of it; what is beyond the array is outside."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    middle = (slice(1, -1),) * mask.ndim
    for axis in range(mask.ndim):
        for step in (slice(None, -2), slice(2, None)):
            inside &= padded[(*middle[:axis], step, *middle[axis + 1 :])]
    return mask & ~inside


def surface_distances(mask: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """For each voxel of the surface of `mask` the distance to the nearest one of that of `other`, in the unit of
    `spacing`, the size of a voxel along each axis: `[n] float64`. Infinite where `other` is empty."""
    from scipy import ndimage

    _check(mask, other)
    if len(spacing) != mask.ndim or min(spacing) <= 0:
        raise ValueError(f"spacing has {mask.ndim} numbers greater than 0")
    edge = surface(other)
    if not edge.any():
        return np.full(int(surface(mask).sum()), np.inf)
    return np.asarray(ndimage.distance_transform_edt(~edge, sampling=spacing), np.float64)[surface(mask)]


def hausdorff95(truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]) -> float:
    """The larger of the two 95th percentiles of `surface_distances`, of `truth` to `predicted` and back; linear between
    two of them, as numpy's `percentile`."""
    if not truth.any() or not predicted.any():
        return _of_empty(truth, predicted, spacing)
    pairs = ((truth, predicted), (predicted, truth))
    return max(float(np.percentile(surface_distances(one, other, spacing), 95)) for one, other in pairs)


def average_surface_distance(truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]) -> float:
    """The mean of `surface_distances` of both masks together (symmetric)."""
    if not truth.any() or not predicted.any():
        return _of_empty(truth, predicted, spacing)
    there, back = surface_distances(truth, predicted, spacing), surface_distances(predicted, truth, spacing)
    return float((there.sum() + back.sum()) / (len(there) + len(back)))


def _of_empty(truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]) -> float:
    surface_distances(truth, predicted, spacing)  # what is wrong with the arguments is told of empty masks, too
    return float("inf") if truth.any() or predicted.any() else float("nan")


def _check(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.dtype != bool or predicted.dtype != bool or truth.shape != predicted.shape:
        found = f"{truth.dtype} {list(truth.shape)} and {predicted.dtype} {list(predicted.shape)}"
        raise ValueError(f"masks are booleans of one shape, these are {found}")
