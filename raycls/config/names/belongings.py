"""Arguments belong to the name they were set with: where a later layer names another one, they are left out.

`model: {name: tiny_cnn, args: {width: 64}}` in a file and `model.name=resnet18` on the command line: the width is
tiny_cnn's, and resnet18 starts with arguments of its own, those that are set beside the new name or later. What was
left out is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from raycls.config.errors import Path, Place, dotted, value_at
from raycls.config.names.builders import BUILDERS, defaults
from raycls.config.names.networks import torchvision_models
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section, child, is_free
from raycls.config.write import flow, to_dict
from raycls.config.yaml_text import Document

__all__ = ["PUBLISHED", "Belongings", "name_of", "named", "searched_notes", "without_others"]


_WEIGHTS: Path = ("model", "weights")
_PRUNED: Path = ("model", "pruned")
_MOST_SHOWN = 200
PUBLISHED = re.compile(r"(?:\w+_Weights\.)?[A-Z][A-Z0-9_]*")
"""A name of torchvision's weights, and no file."""


@cache
def named(model: type[Section] = Run, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """The sections that have a `name` and `args` that belong to it, such as `model` and `data.source`."""
    found = [path] if "name" in model.model_fields and "args" in model.model_fields and is_free(model, "args") else []
    inner = ((key, section) for key in model.model_fields if (section := child(model, key)) is not None)
    return (*found, *(each for key, section in inner for each in named(section, (*path, key))))


class Belongings:
    """What belongs to names, while the layers of a config are laid over each other."""

    def __init__(self) -> None:
        self._aside: dict[tuple[Path, str], tuple[Any, dict[Path, Place]]] = {}
        self._kept: list[tuple[str, str]] = []

    def switch(self, values: dict[str, Any], places: dict[Path, Place], layer: Sequence[Document]) -> None:
        """Make `values` ready for `layer`: what belongs to names that it replaces is set aside.

        It comes back where a further layer names the first one again.
        """
        for section in named():
            old = name_of(values, section)
            written = [
                name for document in layer if (name := value_at(document.values, (*section, "name"))) is not None
            ]
            new = written[-1] if written else old
            if new == old or not isinstance(new, str):
                continue
            for path in _owned(section):
                value = value_at(values, path)
                if value is not None and _is_of(path, value, new):
                    _take(values, path)
                    inside = [place for place in places if place[: len(path)] == path]
                    self._aside[path, old] = value, {place: places.pop(place) for place in inside}
                elif path == _WEIGHTS and isinstance(value, str) and PUBLISHED.fullmatch(value):
                    self._kept.append((value, new))
                if (path, new) in self._aside:
                    value, inside = self._aside.pop((path, new))
                    _put(values, path, value)
                    places.update(inside)

    def notes(self, values: Mapping[str, Any]) -> list[str]:
        """What was left out of `values`, all layers laid over each other, a line for each."""
        left_out = [
            f"{dotted(path)} {_shown(told)} of {name} left out: "
            f"{dotted((*path[:-1], 'name'))} is {name_of(values, path[:-1])} now"
            for (path, name), (value, _) in self._aside.items()
            if (told := _beside_defaults(path, name, value))
        ]
        stays = [
            f"model.weights {weights} stays: {name} has weights of that name too"
            for weights, name in self._kept
            if (weights, name) == (value_at(values, _WEIGHTS), name_of(values, _WEIGHTS[:-1]))
        ]
        return [*left_out, *stays]


def without_others(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a run without what belongs to the names that `chosen`, by dotted path, replaces."""
    result = dict(values)
    for section in named():
        name = chosen.get(dotted((*section, "name")))
        if name is None or name == name_of(values, section):
            continue
        for depth in range(len(section)):  # what is changed below is a copy
            _put(result, section[: depth + 1], dict(value_at(result, section[: depth + 1]) or {}))
        for path in _owned(section):
            if _is_of(path, value_at(values, path), name):
                _take(result, path)
    return result


def _owned(section: Path) -> list[Path]:
    return [(*section, "args"), *([_WEIGHTS, _PRUNED] if section == _WEIGHTS[:-1] else [])]


def _is_of(path: Path, value: Any, new: str) -> bool:
    """Whether a value belongs to the old name alone. A file of weights may be for any, and is left to be tried."""
    if path != _WEIGHTS:
        return True
    if not isinstance(value, str) or not PUBLISHED.fullmatch(value):
        return False
    model = torchvision_models.find(new)
    return model is None or value not in model.weights


def searched_notes(run: Run, paths: Sequence[str]) -> list[str]:
    """What trials with another name do without, where `paths` are searched, a line for each."""
    values = to_dict(run)
    return [
        f"{dotted(path)} {_shown(told)} of {name_of(values, section)} left out in trials with another "
        f"{dotted((*section, 'name'))}" + (", except where it has weights of that name" if path == _WEIGHTS else "")
        for section in named()
        for path in _owned(section)
        if dotted((*section, "name")) in paths and (value := value_at(values, path))
        if path != _WEIGHTS or PUBLISHED.fullmatch(value)
        if (told := _beside_defaults(path, name_of(values, section), value))
    ]


def _shown(value: Any) -> str:
    text = flow(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."


def _beside_defaults(path: Path, name: str, value: Any) -> object:
    """`value` without the arguments that are what they are without a word."""
    if path[0] not in BUILDERS or not isinstance(value, Mapping):
        return value
    usual: dict[str, Any] = defaults(str(path[0]), name)
    return {key: each for key, each in cast("Mapping[str, Any]", value).items() if usual.get(key) != each}


def name_of(values: Mapping[str, Any], section: Path) -> str:
    """The name in `section`, or its default."""
    name = value_at(values, (*section, "name"))
    return name if isinstance(name, str) else value_at(to_dict(Run()), (*section, "name"))


def _take(values: dict[str, Any], path: Path) -> None:
    cast("dict[Any, Any]", value_at(values, path[:-1])).pop(path[-1], None)


def _put(values: dict[str, Any], path: Path, value: Any) -> None:
    inner: Any = values
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
