"""Errors in a config: each with its place, all of them in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycls.errors import ConfigError

__all__ = [
    "COMMAND_LINE",
    "ConfigProblemsError",
    "Path",
    "Place",
    "Problem",
    "dotted",
    "keys_of",
    "nearest",
    "value_at",
]

COMMAND_LINE = "command line"

Path = tuple[str | int, ...]
"""Keys and list indices from the top of a config down to a value."""


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file and its line (from 1), or the command line."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `path` is dotted and empty where the error has none (bad YAML syntax)."""

    place: Place
    path: str
    what: str
    found: str | None = None
    valid: str | None = None
    fix: str | None = None

    @property
    def where(self) -> str:
        """The place as text: `digits.yaml:4`, `command line`."""
        return str(self.place)

    @property
    def headline(self) -> str:
        """What is wrong, with the dotted path where there is one."""
        return self.what if self.what.startswith(self.path) else f"{self.path}: {self.what}"

    def __str__(self) -> str:
        lines = [f"{self.where}  {self.headline}"]
        for label, value in (("found", self.found), ("valid", self.valid), ("fix", self.fix)):
            if value is not None:
                lines.append(f"  {label + ':':<7}{value}")
        return "\n".join(lines)


class ConfigProblemsError(ConfigError):
    """Every error of a config in one error. `problems` lists them in the order of the text."""

    def __init__(self, title: str, problems: Sequence[Problem]) -> None:
        self.title = title
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            only = self.problems[0]
            super().__init__(only.headline, where=only.where, found=only.found, valid=only.valid, fix=only.fix)
            return
        blocks = [f"{title}: {len(self.problems)} errors"]
        blocks += ["  " + str(problem).replace("\n", "\n  ") for problem in self.problems]
        super().__init__("\n".join(blocks))

    def __reduce__(self) -> tuple[object, ...]:
        return (ConfigProblemsError, (self.title, self.problems))


def dotted(path: Path) -> str:
    """A path as people write it: `data.source.args`, `augment.train[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def keys_of(path: Path) -> tuple[str, ...]:
    """The keys of a path without its list indices: the option that holds the value."""
    return tuple(part for part in path if isinstance(part, str))


def value_at(values: Any, path: Path) -> Any:
    """The value at `path` of nested mappings and lists; None where there is none."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def nearest(places: Mapping[Path, Place], home: Place, path: Path) -> Place:
    """The place of `path`, or of the nearest thing around it that has one; else `home`."""
    inner = (places.get(path[:depth]) for depth in range(len(path), 0, -1))
    return next((place for place in inner if place is not None), home)
