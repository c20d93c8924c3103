"""Mean field of a CRF whose voxels are all pairs within a reach (Kraehenbuehl and Koltun 2011, algorithm 1).

The energy of labels x is the sum over voxels of -log p_i(x_i), and over pairs with different labels of

    k_ij = smoothness exp(-d^2 / 2 smooth_width^2) + appearance exp(-d^2 / 2 width^2 - |I_i - I_j|^2 / 2 contrast^2)

for distances d up to `reach`. With a reach over the whole image it is the fully connected CRF. No lattice or filter
approximates the kernels: each distance between voxels is one shifted sum, in one order, so the result is the same on
any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, floor

import torch
from torch import Tensor

__all__ = ["Crf", "normal", "refined"]

LEAST = 1e-6
"""Probabilities count as at least this, so that a network that is sure can be wrong."""
BLOCK = 2**20
"""Numbers of a part of the image that is computed at a time; one slice or row where that has more."""


@dataclass(frozen=True)
class Crf:
    """The parameters. Distances are in mm where the spacing is, else in voxels; intensities are those of the image."""

    smoothness: float = 0.2
    """Weight of the kernel that asks for distances alone."""
    smooth_width: float = 1.5
    appearance: float = 0.5
    """Weight of the kernel that asks for intensities too."""
    width: float = 3.0
    contrast: float = 0.1
    reach: float = 5.0
    """Pairs that are farther apart do not count."""
    steps: int = 5

    def __post_init__(self) -> None:
        positive = (self.smooth_width, self.width, self.contrast, self.reach)
        if not all(0 < value < float("inf") for value in positive):
            raise ValueError("smooth_width, width, contrast and reach are greater than 0")
        if not all(0 <= value < float("inf") for value in (self.smoothness, self.appearance)):
            raise ValueError("smoothness and appearance are 0 or more")
        if type(self.steps) is not int or self.steps < 0:
            raise ValueError("steps is an integer of 0 or more")


def refined(probabilities: Tensor, image: Tensor, crf: Crf, *, spacing: Sequence[float] | None = None) -> Tensor:
    """What the CRF makes of `probabilities` `[C, H, W]` or `[C, D, H, W]` float: the same shape, float32.

    `image` `[K, H, W]` or `[K, D, H, W]` has the intensities, `spacing` the distance of neighbours along each axis.
    Needs memory for three times the probabilities. ValueError where shapes do not fit, or where a number is not finite.
    """
    sides = tuple(probabilities.shape[1:])
    spacing = [1.0] * len(sides) if spacing is None else [float(each) for each in spacing]
    if len(sides) not in (2, 3) or tuple(image.shape[1:]) != sides or len(spacing) != len(sides):
        raise ValueError(f"shapes do not fit: {list(probabilities.shape)}, {list(image.shape)}, spacing {spacing}")
    if not all(0 < each < float("inf") for each in spacing):
        raise ValueError("distances of neighbours are greater than 0")
    if not bool(probabilities.isfinite().all()) or not bool(image.isfinite().all()):
        raise ValueError("probabilities and intensities are finite numbers")
    with torch.no_grad():
        unary = probabilities.float().clamp_min(LEAST).log()
        image, result = image.float(), normal(unary.clone())
        for _ in range(crf.steps if crf.smoothness or crf.appearance else 0):
            result = normal(_messages(result, image, crf, spacing).add_(unary))
    return result


def normal(logits: Tensor) -> Tensor:
    """Softmax over the first axis, in place; that of torch has other last bits where more threads share it."""
    weights = logits.sub_(logits.amax(0)).exp_()
    return weights.div_(weights.sum(0))


def _messages(beliefs: Tensor, image: Tensor, crf: Crf, spacing: Sequence[float]) -> Tensor:
    """What the neighbours of each voxel say of each class: the sum over j of k_ij Q_j, `[C, ...]`."""
    sums = torch.zeros_like(beliefs)
    for offset, square in _offsets(beliefs.shape[1:], spacing, crf.reach):
        near = crf.smoothness * exp(-square / (2 * crf.smooth_width**2))
        like = crf.appearance * exp(-square / (2 * crf.width**2))
        for here, there in _parts(beliefs.shape, offset):
            kernel = (image[here] - image[there]).square_().sum(0)
            kernel = kernel.mul_(-1 / (2 * crf.contrast**2)).exp_().mul_(like).add_(near)
            sums[here] += kernel * beliefs[there]
            sums[there] += kernel * beliefs[here]
    return sums


def _offsets(sides: Sequence[int], spacing: Sequence[float], reach: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Half of the steps to other voxels within `reach`, with the squares of their lengths; the others are opposite."""
    most = [int(min(floor(reach / step), side - 1)) for step, side in zip(spacing, sides, strict=True)]
    for offset in product(*(range(-each, each + 1) for each in most)):
        square = sum((step * width) ** 2 for step, width in zip(offset, spacing, strict=True))
        if offset > (0,) * len(offset) and square <= reach**2:
            yield offset, square


def _parts(shape: Sequence[int], offset: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """The voxels that have another one at `offset`, and those others, a block of the first axis at a time."""
    first, sides = offset[0], shape[2:]  # the first one is never negative
    inner = [slice(max(0, -step), side - max(0, step)) for step, side in zip(offset[1:], sides, strict=True)]
    other = [slice(max(0, step), side - max(0, -step)) for step, side in zip(offset[1:], sides, strict=True)]
    area = shape[0]
    for side in sides:
        area *= side
    rows, stop = max(1, BLOCK // area), shape[1] - first
    for start in range(0, stop, rows):
        end = min(stop, start + rows)
        yield (slice(None), slice(start, end), *inner), (slice(None), slice(start + first, end + first), *other)
