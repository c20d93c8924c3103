"""The median rule: a trial ends when its best so far is worse than the median of what the others had on average.

Golovin, Solnik, Moitra, Kochanski, Karro, Sculley: Google Vizier: A Service for Black-Box Optimization, KDD 2017,
section 3.2.2. As in Ray Tune, others are all that came as far, and not only those that have ended.
"""

from __future__ import annotations

import math
import statistics

from raycls.search.scheduler import Rung, Verdict, goodness

__all__ = ["Median"]


class Median:
    """Stops nothing before `grace` (in the unit of the times), and nothing without `others` others to compare with.

    Running averages are of the results from `grace` on. A value that is not finite makes an average the worst.
    """

    def __init__(self, *, grace: float, mode: str, others: int = 3) -> None:
        self._grace, self._mode, self._others = grace, mode, others
        self._results: dict[int, list[tuple[float, float]]] = {}  # (time, goodness) in the order of time

    def judge(self, number: int, time: float, value: float) -> Verdict:
        """Record the result and compare the trial's best with the others' averages up to `time`."""
        own = self._results.setdefault(number, [])
        if own and time <= own[-1][0]:
            return Verdict()
        own.append((time, goodness(value, self._mode)))
        if time < self._grace:
            return Verdict()
        averages = [
            statistics.fmean(known)
            for other, results in self._results.items()
            if other != number and results[-1][0] >= time
            if (known := [value for moment, value in results if self._grace <= moment <= time])
        ]
        if len(averages) < self._others:
            return Verdict()
        median, best = statistics.median(averages), max(value for _, value in own)
        cutoff = (median if self._mode == "max" else -median) if math.isfinite(median) else None
        if best < median:
            best = best if self._mode == "max" else -best
            return Verdict(True, None, cutoff, f"its best, {best:.6g}, is worse than the others' median {cutoff:.6g}")
        return Verdict(False, None, cutoff)

    @property
    def rungs(self) -> list[Rung]:
        """None: every result after the grace is judged."""
        return []
