"""What losses have in common: labels may be mixed, and a class may have a weight.

A label is a class, `[B] int64`, or the shares of all classes, `[B, C] float32` with rows that add up to 1, as MixUp and
CutMix make them. Every loss here treats a mixed sample as the mean over its classes, weighted by their shares, of what
a sample of that class would cost: for hard labels both forms are the same number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["expected", "main_class", "shares", "smoothed"]


def shares(targets: Tensor, classes: int) -> Tensor:
    """Labels of either form as `[B, C] float32`."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


def main_class(targets: Tensor) -> Tensor:
    """The class with the largest share, the first one of equals, `[B] int64`."""
    return targets if targets.ndim == 1 else targets.argmax(1)


def smoothed(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels mixed with `smoothing` of the uniform distribution, `[B, C]` (Szegedy et al. 2016, section 7)."""
    return shares(targets, classes) * (1 - smoothing) + smoothing / classes


def expected(costs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The sum over samples of the cost of each label: `sum over b, c of targets[b, c] * weights[c] * costs[b, c]`.

    `costs` `[B, C]` has what sample `b` costs if it is of class `c`; `weights` is `[C]`, None stands for ones.
    """
    if targets.ndim == 1:
        chosen = costs.gather(1, targets[:, None])[:, 0]
        return (chosen if weights is None else chosen * weights[targets]).sum()
    return torch.sum(costs * (targets if weights is None else targets * weights))
