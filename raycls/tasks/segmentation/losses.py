"""Losses of masks: each sample by itself, so that none depends on which samples share a batch.

All of them take `logits` `[B, C, ...] float32` and `codes` `[B, ...]` (0: ignored, else one more than the class), and
return one number per sample, `[B]`: a sum over samples does not depend on how they are dealt. Classes are told apart by
products and not by gathering, which has no deterministic backward pass on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "MaskLoss", "ce_dice", "cross_entropy", "dice", "focal", "tversky"]

MaskLoss = Callable[[Tensor, Tensor, Mapping[str, float]], Tensor]
_SMOOTH = 1.0
"""Added above and below: a class that is nowhere, and is predicted nowhere, costs nothing (Milletari et al. 2016)."""


def cross_entropy(logits: Tensor, codes: Tensor, args: Mapping[str, float]) -> Tensor:
    """The mean over the pixels that are not ignored."""
    truth, there = _truth(logits, codes)
    return _mean(-(truth * logits.log_softmax(1)).sum(1), there)


def focal(logits: Tensor, codes: Tensor, args: Mapping[str, float]) -> Tensor:
    """Cross entropy times (1 - p)^`gamma` (2) of the pixel's class (Lin et al. 2017)."""
    truth, there = _truth(logits, codes)
    log = (truth * logits.log_softmax(1)).sum(1)
    return _mean(-log * (1 - log.exp()).clamp_min(0) ** args.get("gamma", 2.0), there)


def dice(logits: Tensor, codes: Tensor, args: Mapping[str, float]) -> Tensor:
    """1 minus the Dice of probabilities: the mean over the classes, without the first where `background` is 0."""
    return _overlap(logits, codes, 0.5, 0.5, args)


def tversky(logits: Tensor, codes: Tensor, args: Mapping[str, float]) -> Tensor:
    """1 minus the index of Tversky, as `dice` with `alpha` (0.3) for false and `beta` (0.7) for missed pixels (Salehi
    et al. 2017)."""
    return _overlap(logits, codes, args.get("alpha", 0.3), args.get("beta", 0.7), args)


def ce_dice(logits: Tensor, codes: Tensor, args: Mapping[str, float]) -> Tensor:
    """`cross_entropy` plus `dice`."""
    return cross_entropy(logits, codes, args) + dice(logits, codes, args)


LOSSES: Mapping[str, tuple[MaskLoss, frozenset[str]]] = {
    "ce_dice": (ce_dice, frozenset()),
    "cross_entropy": (cross_entropy, frozenset()),
    "dice": (dice, frozenset()),
    "tversky": (tversky, frozenset(("alpha", "beta"))),
    "focal": (focal, frozenset(("gamma",))),
}
"""The losses by name, and the arguments that each of them reads."""


def _truth(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The class of each pixel as `[B, C, ...]` of 0 and 1, all 0 where it is ignored; and whether it is not."""
    classes = torch.arange(1, logits.shape[1] + 1, device=codes.device).view(1, -1, *[1] * (codes.ndim - 1))
    return (codes[:, None] == classes).to(logits.dtype), (codes > 0).to(logits.dtype)


def _mean(costs: Tensor, there: Tensor) -> Tensor:
    return (costs * there).flatten(1).sum(1) / there.flatten(1).sum(1).clamp_min(1)


def _overlap(logits: Tensor, codes: Tensor, alpha: float, beta: float, args: Mapping[str, float]) -> Tensor:
    first = 0 if args.get("background", 0) else 1
    truth, there = _truth(logits, codes)
    found = (F.softmax(logits, 1) * there[:, None])[:, first:].flatten(2)
    truth = truth[:, first:].flatten(2)
    both = (found * truth).sum(2)
    wrong, missed = found.sum(2) - both, truth.sum(2) - both
    index = (both + _SMOOTH / 2) / (both + alpha * wrong + beta * missed + _SMOOTH / 2)
    return (1 - index).mean(1)
