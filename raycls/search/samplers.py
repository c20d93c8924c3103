"""Which values the next trial has: `search.algorithm`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Space
from raycls.search.random import Random, any_fits, nothing_fits
from raycls.search.tpe import Tpe

__all__ = ["Grid", "Sampler", "make_sampler"]


class Sampler(Protocol):
    """Values of trials by their number, which counts from 1. The same calls in the same order, in whichever process,
    give the same suggestions: what a ledger holds, given again in its order, is all the state there is.
    """

    def suggest(self, number: int) -> dict[str, Any] | None:
        """The values of trial `number`; None: there are no more. Asked again, the same values.

        Raises ConfigError if no combination fits the budget of models.
        """
        ...

    def adopt(self, number: int, chosen: Mapping[str, Any]) -> None:
        """Trial `number` has these values from an earlier start of the search, and runs."""
        ...

    def tell(self, number: int, chosen: Mapping[str, Any], value: float | None) -> None:
        """Trial `number` ended with `value`; None: it failed."""
        ...


def make_sampler(
    space: Space,
    search: SearchConfig,
    *,
    mode: Literal["max", "min"],
    fits: Callable[[dict[str, Any]], bool] = any_fits,
) -> Sampler:
    """The sampler of `search.algorithm`. `mode` is what `search.mode` comes to; `fits` says whether a combination is
    within the budget of models.

    Raises ConfigError if the algorithm needs a package that is not installed.
    """
    if search.algorithm == "grid":
        return Grid(space, search, fits=fits)
    if search.algorithm == "optuna":
        return Tpe(space, search, mode=mode, fits=fits)
    return Random(space, search, fits=fits)


class Grid:
    """Every combination that fits the budget, in the order in which the space is written."""

    def __init__(
        self, space: Space, search: SearchConfig, *, fits: Callable[[dict[str, Any]], bool] = any_fits
    ) -> None:
        self._search, self._fits = search, fits
        self._combinations = space.combinations()
        self._tried = 0
        self._fitting: list[dict[str, Any]] = []

    def suggest(self, number: int) -> dict[str, Any] | None:
        """Combination `number` of those that fit. Raises ConfigError if none does."""
        while len(self._fitting) < number:
            chosen = next(self._combinations, None)
            if chosen is None:
                if self._fitting:
                    return None
                raise nothing_fits(self._search, self._tried)
            self._tried += 1
            if self._fits(chosen):
                self._fitting.append(chosen)
        return dict(self._fitting[number - 1])

    def adopt(self, number: int, chosen: Mapping[str, Any]) -> None:
        """The number says it all."""

    def tell(self, number: int, chosen: Mapping[str, Any], value: float | None) -> None:
        """A grid learns nothing."""
