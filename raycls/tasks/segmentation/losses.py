"""Losses of masks: each sample by itself, so that none depends on which samples share a batch.

A loss is a number per sample that follows from what is added up over its pixels: those of a large volume may be added
up in parts. All of them take `logits` `[B, C, ...] float32` and `codes` `[B, ...]` (0: ignored, else one more than the
class). Classes are told apart by products and not by gathering, which has no deterministic backward pass on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "MaskLoss"]

_SMOOTH = 1.0
"""Added above and below: a class that is nowhere, and is predicted nowhere, costs nothing (Milletari et al. 2016)."""

_Args = Mapping[str, float]
_Sums = tuple[Tensor, ...]


class MaskLoss(NamedTuple):
    """A loss by its two halves."""

    sums: Callable[[Tensor, Tensor, _Args], _Sums]
    """Of `logits` and `codes`, what is added up over the pixels of each sample, `[B, ...]` each."""
    value: Callable[[_Sums, _Args], Tensor]
    """The loss of each sample by its sums, `[B]`."""
    takes: frozenset[str] = frozenset()
    """The arguments that it reads."""

    def __call__(self, logits: Tensor, codes: Tensor, args: _Args) -> Tensor:
        """The loss of each sample, `[B]`: a sum over samples does not depend on how they are dealt."""
        return self.value(self.sums(logits, codes, args), args)

    def in_parts(self, logits: Tensor, codes: Tensor, args: _Args, most: int) -> Tensor:
        """The same, `most` pixels of a sample at a time: of all at once it would take several times the memory of the
        logits. Samples of at most that many have the bits of a call."""
        if codes[:1].numel() <= most:
            return self(logits, codes, args)
        parts = zip(logits.flatten(2).split(most, 2), codes.flatten(1).split(most, 1), strict=True)
        each = [self.sums(part, code, args) for part, code in parts]
        added = tuple(torch.stack(several).sum(0) for several in zip(*each, strict=True))
        return self.value(added, args)


def _cross_entropies(logits: Tensor, codes: Tensor, args: _Args) -> _Sums:
    truth, there = _truth(logits, codes)
    return _masked(-(truth * logits.log_softmax(1)).sum(1), there)


def _focal(logits: Tensor, codes: Tensor, args: _Args) -> _Sums:
    truth, there = _truth(logits, codes)
    log = (truth * logits.log_softmax(1)).sum(1)
    return _masked(-log * (1 - log.exp()).clamp_min(0) ** args.get("gamma", 2.0), there)


def _masked(costs: Tensor, there: Tensor) -> _Sums:
    return (costs * there).flatten(1).sum(1), there.flatten(1).sum(1)


def _mean(sums: _Sums, args: _Args) -> Tensor:
    costs, pixels = sums
    return costs / pixels.clamp_min(1)


def _overlaps(logits: Tensor, codes: Tensor, args: _Args) -> _Sums:
    first = 0 if args.get("background", 0) else 1
    truth, there = _truth(logits, codes)
    found = (F.softmax(logits, 1) * there[:, None])[:, first:].flatten(2)
    truth = truth[:, first:].flatten(2)
    return (found * truth).sum(2), found.sum(2), truth.sum(2)


def _index(sums: _Sums, args: _Args, *, alpha: float | None = None, beta: float | None = None) -> Tensor:
    both, found, truth = sums
    alpha, beta = (
        (args.get("alpha", 0.3) if alpha is None else alpha),
        (args.get("beta", 0.7) if beta is None else beta),
    )
    wrong, missed = found - both, truth - both
    index = (both + _SMOOTH / 2) / (both + alpha * wrong + beta * missed + _SMOOTH / 2)
    return (1 - index).mean(1)


_dice = partial(_index, alpha=0.5, beta=0.5)


def _both(logits: Tensor, codes: Tensor, args: _Args) -> _Sums:
    return *_cross_entropies(logits, codes, args), *_overlaps(logits, codes, args)


def _added(sums: _Sums, args: _Args) -> Tensor:
    return _mean(sums[:2], args) + _dice(sums[2:], args)


LOSSES: Mapping[str, MaskLoss] = {
    "ce_dice": MaskLoss(_both, _added),
    "cross_entropy": MaskLoss(_cross_entropies, _mean),
    "dice": MaskLoss(_overlaps, _dice),
    "tversky": MaskLoss(_overlaps, _index, frozenset(("alpha", "beta"))),
    "focal": MaskLoss(_focal, _mean, frozenset(("gamma",))),
}
"""By name. `cross_entropy`: the mean over the pixels that are not ignored. `dice`: 1 minus the Dice of probabilities, a
mean over the classes, without the first where `background` is 0. `ce_dice`: both added. `tversky`: 1 minus the index of
Tversky, with `alpha` (0.3) for false and `beta` (0.7) for missed pixels (Salehi et al. 2017). `focal`: cross entropy
times (1 - p)^`gamma` (2) of the pixel's class (Lin et al. 2017)."""


def _truth(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The class of each pixel as `[B, C, ...]` of 0 and 1, all 0 where it is ignored; and whether it is not."""
    classes = torch.arange(1, logits.shape[1] + 1, device=codes.device).view(1, -1, *[1] * (codes.ndim - 1))
    return (codes[:, None] == classes).to(logits.dtype), (codes > 0).to(logits.dtype)
