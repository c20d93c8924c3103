"""What a scheduler says about a result of a trial, and the scheduler that says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Never", "Rung", "Scheduler", "Verdict", "goodness"]

Rung = tuple[int, float, Mapping[int, float]]
"""`(bracket, milestone, {number: value})`: what trials had reached when they came past the milestone."""


@dataclass(frozen=True)
class Verdict:
    """Whether a trial ends at this result, and by what it was judged."""

    stop: bool = False
    rung: float | None = None
    """The milestone at which the result was recorded; None where it was not."""
    cutoff: float | None = None
    """The value that the trial had to reach; None where there was nothing to compare with."""
    why: str = ""


class Scheduler(Protocol):
    """Judges the results of trials, in the order in which they come. It knows no clock, no file and no other state:
    the results of a ledger, given again in their order, bring it to where it was.
    """

    def judge(self, number: int, time: float, value: float) -> Verdict:
        """Record that trial `number` has `value` at `time` and say whether it ends. A trial's time that was there
        already, or an earlier one, is a repetition: it changes nothing and the trial continues.
        """
        ...

    @property
    def rungs(self) -> Sequence[Rung]: ...


class Never:
    """Every trial runs to its end."""

    def judge(self, number: int, time: float, value: float) -> Verdict:
        return Verdict()

    @property
    def rungs(self) -> list[Rung]:
        return []


def goodness(value: float, mode: str) -> float:
    """`value` so that more is better in both modes; a value that is not finite is the worst there is, -inf."""
    if not math.isfinite(value):
        return -math.inf
    return value if mode == "max" else -value
