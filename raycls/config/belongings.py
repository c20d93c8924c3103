"""Arguments belong to the name they were set with: where a later layer names another one, they are left out.

`model: {name: tiny_cnn, args: {width: 64}}` in a file and `model.name=resnet18` on the command line: the width is
tiny_cnn's, and resnet18 starts with arguments of its own, those that are set beside the new name or later. What was
left out is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from raycls.config.document import Document
from raycls.config.mistakes import Path, Place, dotted
from raycls.config.schema import Run
from raycls.config.section import Section, child, is_free
from raycls.config.write import flow, to_dict

__all__ = ["Belongings", "name_of", "named", "searched_notes", "without_others"]


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

    def switch(self, values: dict[str, Any], places: dict[Path, Place], layer: Sequence[Document]) -> None:
        """Make `values` ready for `layer`: the arguments of names that it replaces are set aside.

        They come back where a further layer names the first one again.
        """
        for section in named():
            old = name_of(values, section)
            written = [name for document in layer if (name := _at(document.values, (*section, "name"))) is not None]
            new = written[-1] if written else old
            if new == old or not isinstance(new, str):
                continue
            path = (*section, "args")
            if (args := _taken(values, path)) is not None:
                inside = [place for place in places if place[: len(path)] == path]
                self._aside[section, old] = args, {place: places.pop(place) for place in inside}
            if (section, new) in self._aside:
                args, inside = self._aside.pop((section, new))
                _put(values, path, args)
                places.update(inside)

    def notes(self, values: Mapping[str, Any]) -> list[str]:
        """What was left out of `values`, all layers laid over each other, a line for each name."""
        return [
            f"{dotted((*section, 'args'))} {flow(args)} of {name} left out: "
            f"{dotted((*section, 'name'))} is {name_of(values, section)} now"
            for (section, name), (args, _) in self._aside.items()
            if args
        ]


def without_others(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a run without the arguments of the names that `chosen`, by dotted path, replaces."""
    result = dict(values)
    for section in named():
        name = chosen.get(dotted((*section, "name")))
        if name is not None and name != name_of(values, section):
            for depth in range(len(section)):  # what is changed below is a copy
                _put(result, section[: depth + 1], dict(_at(result, section[: depth + 1]) or {}))
            _put(result, (*section, "args"), {})
    return result


def searched_notes(run: Run, paths: Sequence[str]) -> list[str]:
    """What trials with another name do without, where `paths` are searched, a line for each."""
    values = to_dict(run)
    return [
        f"{dotted((*section, 'args'))} {flow(args)} of {name_of(values, section)} left out in trials with another "
        f"{dotted((*section, 'name'))}"
        for section in named()
        if dotted((*section, "name")) in paths and (args := _at(values, (*section, "args")))
    ]


def name_of(values: Mapping[str, Any], section: Path) -> str:
    """The name in `section`, or its default."""
    name = _at(values, (*section, "name"))
    return name if isinstance(name, str) else _at(to_dict(Run()), (*section, "name"))


def _at(values: Any, path: Path) -> Any:
    for key in path:
        values = cast("Mapping[Any, Any]", values).get(key) if isinstance(values, Mapping) else None
    return values


def _taken(values: dict[str, Any], path: Path) -> Any:
    inner = _at(values, path[:-1])
    return cast("dict[Any, Any]", inner).pop(path[-1], None) if isinstance(inner, dict) else None


def _put(values: dict[str, Any], path: Path, value: Any) -> None:
    inner: Any = values
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
