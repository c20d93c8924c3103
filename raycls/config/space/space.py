"""The space of a search: the paths that are varied, their values, and how many combinations there are."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

__all__ = ["Condition", "Kind", "Parameter", "Space", "same"]

Kind = Literal["choice", "uniform", "loguniform", "randint", "lograndint", "quniform"]


def same(one: Any, other: Any) -> bool:
    """Whether two values of a config are one: 1 is 1.0, but neither is true."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


@dataclass(frozen=True)
class Condition:
    """The other path `path` has one of `values`."""

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Parameter:
    """One path that is searched.

    A choice has `values`. A range goes from `low` to `high`, both as written and both included, the numbers of a
    quniform `step` apart.
    """

    path: str
    kind: Kind
    values: tuple[Any, ...] = ()
    low: float | int = 0
    high: float | int = 0
    step: float | int = 0
    when: tuple[Condition, ...] = ()

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Whether every condition holds in `chosen`; one whose path is not chosen does not."""
        return all(
            condition.path in chosen and any(same(chosen[condition.path], value) for value in condition.values)
            for condition in self.when
        )

    @property
    def count(self) -> int | None:
        """How many values there are; None where they are continuous."""
        if self.kind == "choice":
            return len(self.values)
        if self.low == self.high:
            return 1
        if self.kind in ("uniform", "loguniform"):
            return None
        if self.kind == "quniform":
            return int((Decimal(repr(self.high)) - Decimal(repr(self.low))) / Decimal(repr(self.step))) + 1
        return int(self.high) - int(self.low) + 1

    def value(self, index: int) -> Any:
        """Value `index` of `count`, in the order written or upwards."""
        if self.kind == "choice":
            return self.values[index]
        if self.kind == "quniform":  # in decimals, as written: 0.1 + 2 * 0.1 is 0.3
            exact = Decimal(repr(self.low)) + index * Decimal(repr(self.step))
            whole = all(isinstance(number, int) for number in (self.low, self.high, self.step))
            return int(exact) if whole else float(exact)
        return float(self.low) if self.kind in ("uniform", "loguniform") else self.low + index

    def has(self, value: Any) -> bool:
        """Whether `value` is one of the values."""
        if self.kind == "choice":
            return any(same(value, one) for one in self.values)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.kind == "quniform":
            index = round((Decimal(repr(value)) - Decimal(repr(self.low))) / Decimal(repr(self.step)))
            return self.value(index) == value
        return self.kind in ("uniform", "loguniform") or float(value).is_integer()

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every value of a choice, the lowest and the highest of a range."""
        if self.kind == "choice":
            return self.values
        high = self.high if self.count is None else self.value(self.count - 1)
        return (self.low,) if self.low == high else (self.low, high)


@dataclass(frozen=True)
class Space:
    """All paths that are searched; a parameter stands after those that its conditions name."""

    parameters: tuple[Parameter, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(parameter.path for parameter in self.parameters)

    def size(self) -> int | None:
        """How many different combinations there are; None for infinitely many."""
        return _size(self.parameters, {}, {})

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination of a finite space, each once; the values of the first path change last.

        ValueError where a path is continuous.
        """
        endless = [parameter.path for parameter in self.parameters if parameter.count is None]
        if endless:
            raise ValueError(f"{endless[0]} has no finite number of values")
        return _combinations(self.parameters, {})

    def corners(self, most: int) -> Iterator[dict[str, Any]]:
        """Combinations of choices, both ends of every range, and what conditions name between them.

        All of them if there are at most `most`; else `most` draws, always the same ones, in which every value
        of a path comes about equally often.
        """
        ends = tuple(self._corner(parameter) for parameter in self.parameters)
        total = _size(ends, {}, {})
        if total is not None and total <= most:
            return _combinations(ends, {})
        return _draws(ends, most)

    def _corner(self, parameter: Parameter) -> Parameter:
        between = [value for value in _named(parameter, self.parameters) if value not in parameter.ends]
        return Parameter(parameter.path, "choice", (*parameter.ends, *between), when=parameter.when)


def _combinations(parameters: Sequence[Parameter], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not parameters:
        yield dict(chosen)
        return
    first, rest = parameters[0], parameters[1:]
    if not first.active(chosen):
        yield from _combinations(rest, chosen)
        return
    for index in range(first.count or 0):
        yield from _combinations(rest, {**chosen, first.path: first.value(index)})


def _size(parameters: Sequence[Parameter], chosen: Mapping[str, Any], known: dict[Any, int | None]) -> int | None:
    """Combinations of `parameters` after `chosen`, which holds what their conditions look at.

    A path that others depend on is gone through value by value, where only the values that they name are
    told apart; all others count at once. `known` keeps what was worked out.
    """
    if not parameters:
        return 1
    looked_at = {condition.path for parameter in parameters for condition in parameter.when}
    key = (len(parameters), repr(sorted((path, value) for path, value in chosen.items() if path in looked_at)))
    if key in known:
        return known[key]
    first, rest = parameters[0], parameters[1:]
    if not first.active(chosen):
        known[key] = _size(rest, chosen, known)
        return known[key]
    named = _named(first, rest)
    parts = [_size(rest, {**chosen, first.path: value}, known) for value in named]
    others = None if first.count is None else first.count - len(named)
    if others != 0:
        left = _size(rest, chosen, known)
        parts.append(None if others is None or left is None else others * left)
    known[key] = None if None in parts else sum(part for part in parts if part is not None)
    return known[key]


def _named(parameter: Parameter, others: Sequence[Parameter]) -> list[Any]:
    """The different values of `parameter` that conditions of `others` name."""
    result: list[Any] = []
    for condition in (condition for other in others for condition in other.when if condition.path == parameter.path):
        result += [
            value
            for value in condition.values
            if parameter.has(value) and not any(same(value, known) for known in result)
        ]
    return result


def _draws(parameters: Sequence[Parameter], number: int) -> Iterator[dict[str, Any]]:
    draw = random.Random(0)  # noqa: S311 (which combinations are looked at is no secret)
    decks: dict[str, list[Any]] = {parameter.path: [] for parameter in parameters}
    for _ in range(number):
        chosen: dict[str, Any] = {}
        for parameter in parameters:
            if not parameter.active(chosen):
                continue
            deck = decks[parameter.path]
            if not deck:
                deck += parameter.values
                draw.shuffle(deck)
            chosen[parameter.path] = deck.pop()
        yield chosen
