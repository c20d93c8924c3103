"""Population based training: bad trials continue from the weights of good ones, with values changed a little.

Jaderberg et al.: Population Based Training of Neural Networks, 2017, sections 3 and 4.1: truncation selection, and
perturbation by the factors 1.2 and 0.8 or a new draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from raycls.config.sections.search import SchedulerConfig
from raycls.config.space.space import Parameter, Space, same
from raycls.search.random import draw_value
from raycls.search.scheduler import goodness

__all__ = ["Population"]

_DONOR, _EXPLORE = 0xD0, 0xE7
"""First words of the generators' seeds: what is drawn here is not what the samplers draw."""
_FACTORS = (1.2, 0.8)
_ROUNDING = 1e-9


class Population:
    """What all trials had at their latest interval, and which trial exploits which.

    Times are in the unit of `search.interval`: epochs, steps, per cent, or seconds for every unit of time. The
    reports of a ledger, given again in their order, bring it to where it was.
    """

    def __init__(self, space: Space, search: SchedulerConfig, *, mode: Literal["max", "min"], seed: int) -> None:
        self._space, self._mode, self._seed = space, mode, seed
        self._interval = search.interval.seconds or search.interval.value
        self._quantile, self._resample = search.quantile, search.resample
        self._times: dict[int, float] = {}
        self._scores: dict[int, float] = {}

    def report(self, number: int, time: float, value: float) -> int | None:
        """Record the result of trial `number` and return the trial to exploit; None: it continues as it is.

        That is asked at the first report after each interval, of trials in the lower quantile by what all had at their
        own latest interval; the donor is drawn from those in the upper quantile that are better. Afterwards the trial's
        time is the donor's. A time that was there already, or an earlier one, is a repetition and changes nothing.
        """
        before = self._times.get(number, 0.0)
        if time <= before:
            return None
        self._times[number] = time
        if self._intervals(time) == self._intervals(before):
            return None
        self._scores[number] = goodness(value, self._mode)
        ranked = sorted(self._scores, key=lambda other: (self._scores[other], -other))
        count = min(math.ceil(len(ranked) * self._quantile), len(ranked) // 2)
        donors = [other for other in ranked[len(ranked) - count :] if self._scores[other] > self._scores[number]]
        if number not in ranked[:count] or not donors:
            return None
        generator = np.random.default_rng([_DONOR, self._seed, number, self._intervals(time)])
        donor = sorted(donors)[generator.integers(len(donors))]
        self._times[number] = self._times[donor]  # its score stays until it reports: the worst quarter is full
        return donor

    def passed(self, before: float, time: float) -> bool:
        """Whether an interval ends between the two times."""
        return self._intervals(time) > self._intervals(before)

    def explore(self, chosen: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
        """The values of trial `number` after its exploit number `count`, from its donor's values `chosen`.

        Each value is drawn anew with probability `search.resample`; else a number is multiplied by 1.2 or 0.8 within
        its range, and a choice becomes a neighbour in the order written. Conditional paths follow what they depend on.
        """
        result: dict[str, Any] = {}
        for index, parameter in enumerate(self._space.parameters):
            # a generator of its own for each: how much one of them draws is nothing to the others
            generator = np.random.default_rng([_EXPLORE, self._seed, number, count, index])
            if parameter.active(result):
                anew = generator.random() < self._resample or not parameter.has(chosen.get(parameter.path))
                result[parameter.path] = (
                    draw_value(parameter, generator) if anew else _moved(parameter, chosen[parameter.path], generator)
                )
        return result

    def _intervals(self, time: float) -> int:
        return math.floor(time / self._interval + _ROUNDING)


def _moved(parameter: Parameter, value: Any, generator: np.random.Generator) -> Any:
    up = bool(generator.integers(2))
    if parameter.kind == "choice":
        index = next(index for index, one in enumerate(parameter.values) if same(one, value))
        return parameter.values[min(max(index + (1 if up else -1), 0), len(parameter.values) - 1)]
    moved = value * _FACTORS[0 if up else 1]
    if parameter.count is not None:  # whole steps, and at least one: 1.2 times 2 is 3
        step = parameter.step or 1
        index = round((value - parameter.low) / step)
        away = round((moved - parameter.low) / step) - index
        least = (1 if up else -1) * (1 if value >= 0 else -1)
        return parameter.value(min(max(index + (away or least), 0), parameter.count - 1))
    return min(max(moved, float(parameter.low)), float(parameter.high))
