"""Random values of a space, and the sampler that suggests them.

What is drawn depends on the seed, the trial's number and what was suggested before, and on nothing else: a search
that is resumed after a crash, or is done again, suggests the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Parameter, Space
from raycls.errors import ConfigError
from raycls.run import strict_json

__all__ = ["MOST_TRIES", "Random", "any_fits", "draw", "draw_value", "identity", "nothing_fits"]

MOST_TRIES = 1000
"""Combinations that are looked at for one suggestion before it is given up."""
_MOST_LISTED = 65_536
"""Spaces up to this size are gone through one by one where draws no longer find what is left of them."""


def draw_value(parameter: Parameter, generator: np.random.Generator) -> Any:
    """One value of `parameter`: every choice, or every step of a range, as likely as the others; of the log ranges,
    every factor as likely as the others.
    """
    if parameter.count is not None:
        return parameter.value(_index(parameter, parameter.count, generator))
    low, high = float(parameter.low), float(parameter.high)
    if parameter.kind == "uniform":
        return min(max(float(generator.uniform(low, high)), low), high)
    value = math.exp(generator.uniform(math.log(low), math.log(high)))
    return min(max(value, low), high)  # exp(log(high)) may be above high


def _index(parameter: Parameter, count: int, generator: np.random.Generator) -> int:
    if parameter.kind != "lograndint":
        return int(generator.integers(count))
    # an integer stands for the half to both sides of it, so that the ends are not rarer than their share
    low, high = math.log(parameter.low - 0.5), math.log(parameter.high + 0.5)
    return min(max(round(math.exp(generator.uniform(low, high))) - int(parameter.low), 0), count - 1)


def draw(space: Space, generator: np.random.Generator) -> dict[str, Any]:
    """One combination; conditional paths are in it where their conditions hold."""
    chosen: dict[str, Any] = {}
    for parameter in space.parameters:
        if parameter.active(chosen):
            chosen[parameter.path] = draw_value(parameter, generator)
    return chosen


def identity(chosen: Mapping[str, Any]) -> str:
    """A text that two combinations share if they are one, whether they come from a space or from a ledger."""
    return strict_json.dumps(dict(sorted(chosen.items())))


def any_fits(chosen: Mapping[str, Any]) -> bool:
    """The budget of a search without one."""
    return True


def nothing_fits(search: SearchConfig, tried: int) -> ConfigError:
    """None of `tried` combinations is within the budget of models."""
    limits = [f"search.{name}" for name in ("max_parameters", "max_flops") if getattr(search, name) != "off"]
    return ConfigError(
        "no combination of the search space fits the budget of models",
        where=" and ".join(limits) or None,
        found=f"{tried} different combinations, and none of them fits",
        valid=", ".join(f"{limit} up to {getattr(search, limit.removeprefix('search.'))}" for limit in limits) or None,
        fix="raise the budget, or give search.space smaller models",
    )


class Random:
    """Independent draws that fit the budget, none of them twice."""

    def __init__(
        self, space: Space, search: SearchConfig, *, fits: Callable[[dict[str, Any]], bool] = any_fits
    ) -> None:
        self._space, self._search, self._fits = space, search, fits
        self._suggested: dict[int, dict[str, Any]] = {}
        self._seen: set[str] = set()
        self._fitting: dict[str, bool] = {}

    def suggest(self, number: int) -> dict[str, Any] | None:
        """A combination that no earlier trial has; None where there is none left, or none that draws still find.

        Raises ConfigError if there is none that fits the budget at all.
        """
        if number not in self._suggested:
            chosen = self._drawn(number)
            if chosen is None:
                chosen = self._left(number)
            if chosen is None:
                if self._seen:
                    return None
                raise nothing_fits(self._search, len(self._fitting))
            self.adopt(number, chosen)
        return dict(self._suggested[number])

    def adopt(self, number: int, chosen: Mapping[str, Any]) -> None:
        """Trial `number` has these values already: an earlier start of the search, or another sampler, chose them."""
        self._suggested[number] = dict(chosen)
        self._seen.add(identity(chosen))

    def tell(self, number: int, chosen: Mapping[str, Any], value: float | None) -> None:
        """How trials ended makes no difference to random draws; that they took place does."""
        self.adopt(number, chosen)

    def admits(self, chosen: dict[str, Any]) -> bool:
        """Whether no earlier trial has these values and they fit the budget, which is asked once for each of them."""
        name = identity(chosen)
        if name in self._seen:
            return False
        if name not in self._fitting:
            self._fitting[name] = self._fits(chosen)
        return self._fitting[name]

    def _drawn(self, number: int) -> dict[str, Any] | None:
        for attempt in range(MOST_TRIES):
            chosen = draw(self._space, np.random.default_rng([self._search.seed, number, attempt]))
            if self.admits(chosen):
                return chosen
        return None

    def _left(self, number: int) -> dict[str, Any] | None:
        """What is left of a small space, found by going through it in random order."""
        size = self._space.size()
        if size is None or size > _MOST_LISTED:
            return None
        others = [chosen for chosen in self._space.combinations() if identity(chosen) not in self._seen]
        order = np.random.default_rng([self._search.seed, number, MOST_TRIES]).permutation(len(others))
        return next((others[index] for index in map(int, order) if self.admits(others[index])), None)
