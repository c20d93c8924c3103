"""Asynchronous successive halving: a trial continues past a rung if it is among the best that reached it so far.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020. The paper pauses trials and promotes them later; this is the variant that
stops them, with the decisions of Ray Tune's AsyncHyperBandScheduler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from raycls.search.scheduler import Rung, Verdict, goodness

__all__ = ["Asha"]

_BRACKET = 0xB4AC
"""First word of the generator's seed: what is drawn here is not what the samplers draw."""
_ROUNDING = 1e-9
"""0.3 epochs and three times 0.1 epochs are the same time."""


class Asha:
    """Stops at the milestones `grace * reduction**k`, `k = 0, 1, ...`, all but the best `1/reduction` of those that
    came to the milestone so far.

    Bracket `s` begins at `k = s`. `grace`, `longest` (the length of a run) and the times are in one unit, whichever it
    is. Milestones at or above `longest` do not exist: there a trial ends by itself.
    """

    def __init__(self, *, grace: float, reduction: int, brackets: int, longest: float, mode: str, seed: int) -> None:
        if grace <= 0 or reduction < 2 or brackets < 1:
            raise ValueError("grace is above 0, reduction at least 2, brackets at least 1")
        self._reduction, self._mode, self._seed = reduction, mode, seed
        milestones: list[float] = []
        while (milestone := grace * reduction ** len(milestones)) < longest * (1 - _ROUNDING):
            milestones.append(milestone)
        self._brackets: list[list[tuple[float, dict[int, float]]]] = [
            [(milestone, {}) for milestone in milestones[bracket:]] for bracket in range(brackets)
        ]
        self._latest: dict[int, float] = {}

    def bracket(self, number: int) -> int:
        """The bracket of a trial, by its number and the seed alone: with probability in proportion to `exp(rungs)`."""
        sizes = np.array([len(bracket) for bracket in self._brackets])
        weights = np.exp(sizes - sizes.max())
        generator = np.random.default_rng([_BRACKET, self._seed, number])
        return int(generator.choice(len(sizes), p=weights / weights.sum()))

    def judge(self, number: int, time: float, value: float) -> Verdict:
        """Record the result at the highest milestone that the trial has come past, once for each, and compare it with
        what the others had there. A value that is not finite ends the trial, even where there are no others.
        """
        if time <= self._latest.get(number, -math.inf):
            return Verdict()
        self._latest[number] = time
        past = [rung for rung in self._brackets[self.bracket(number)] if time >= rung[0] * (1 - _ROUNDING)]
        if not past or number in past[-1][1]:
            return Verdict()
        milestone, recorded = past[-1]
        limit = _percentile((goodness(other, self._mode) for other in recorded.values()), 1 - 1 / self._reduction)
        recorded[number] = value
        own = goodness(value, self._mode)
        cutoff = (limit if self._mode == "max" else -limit) if math.isfinite(limit) else None
        if own == -math.inf:
            return Verdict(True, milestone, cutoff, f"{value} at rung {milestone:g}")
        if own < limit:
            return Verdict(True, milestone, cutoff, f"{value:.6g} is worse than {cutoff:.6g} at rung {milestone:g}")
        return Verdict(False, milestone, cutoff)

    @property
    def rungs(self) -> list[Rung]:
        """Bracket by bracket, milestones rising; the values as they were given."""
        return [
            (index, milestone, dict(recorded))
            for index, bracket in enumerate(self._brackets)
            for milestone, recorded in bracket
        ]


def _percentile(values: Iterable[float], fraction: float) -> float:
    """The quantile with linear interpolation; -inf where there are no values, or where it is below the finite ones."""
    ordered = np.array(list(values), dtype=np.float64)
    if not ordered.size:
        return -math.inf
    with np.errstate(invalid="ignore"):
        found = float(np.percentile(ordered, fraction * 100))
    return -math.inf if math.isnan(found) else found  # between -inf and a number, whichever share of it: -inf
