"""The parameters of a CRF that are best on cases with known masks, found by a small search without chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from raycls.tasks.crf.dense import Crf, refined

__all__ = ["Case", "Fitted", "fitted"]

DEFAULT = Crf()
TRIED: Mapping[str, tuple[float, ...]] = {
    "appearance": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0),
    "smoothness": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0),
    "contrast": (0.05, 0.1, 0.2, 0.4),
    "width": (1.5, 3.0, 6.0),
}
"""What is tried for each parameter, one after the other."""


@dataclass(frozen=True)
class Case:
    """One image with what is true of it."""

    probabilities: Tensor
    """`[C, H, W]` or `[C, D, H, W]`."""
    image: Tensor
    """`[K, H, W]` or `[K, D, H, W]`."""
    mask: Tensor
    """Class of each voxel, `[H, W]` or `[D, H, W]` integers; others than 0 to C - 1 are ignored."""
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Fitted:
    """What was found. `crf` has both weights 0 where no CRF is better than the network alone."""

    crf: Crf
    score: float
    without: float
    """The score of the network alone."""
    tried: int
    """How many settings were computed."""


def fitted(
    cases: Sequence[Case],
    *,
    start: Crf = DEFAULT,
    rounds: int = 2,
    tried: Mapping[str, Sequence[float]] = TRIED,
    say: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """The best CRF by macro Dice over the classes but 0, from counts of all voxels of `cases`.

    Begins with no CRF and with `start`, then changes one parameter at a time, `rounds` times over, and keeps what is
    better; among equals the first. So it is never worse on these cases than no CRF. ValueError where there are none.
    """
    if not cases:
        raise ValueError("there are no cases to fit a CRF on")
    known: dict[Crf, float] = {}

    def score(crf: Crf) -> float:
        crf = replace(crf, steps=0) if not crf.smoothness and not crf.appearance else crf
        if crf not in known:
            known[crf] = _dice(cases, crf)
            say(f"crf: Dice {known[crf]:.4f} with {crf}")
        return known[crf]

    none = replace(start, smoothness=0.0, appearance=0.0)
    without = score(none)
    best = start
    for _ in range(rounds):
        before = best
        for name, values in tried.items():
            for value in values:
                candidate = replace(best, **{name: value})
                if score(candidate) > score(best):
                    best = candidate
        if best == before:
            break
    best = best if score(best) > without else none
    return Fitted(best, score(best), without, len(known))


def _dice(cases: Sequence[Case], crf: Crf) -> float:
    """The mean over the classes above 0 that are there or predicted; 1 where there are none."""
    count = cases[0].probabilities.shape[0]
    table = np.zeros((count, count), np.int64)
    for case in cases:
        found = refined(case.probabilities, case.image, crf, spacing=case.spacing).argmax(0)
        counted = (case.mask >= 0) & (case.mask < count)
        pairs = case.mask[counted].long() * count + found[counted]
        table += torch.bincount(pairs, minlength=count * count).reshape(count, count).cpu().numpy()
    sums = (table.sum(0) + table.sum(1))[1:]
    scores = [2 * hit / both for hit, both in zip(table.diagonal()[1:].tolist(), sums.tolist(), strict=True) if both]
    return sum(scores) / len(scores) if scores else 1.0
