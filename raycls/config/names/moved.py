"""Options that have another path than they had: a config that was written before is read as if it were written now.

Files, overrides, the `config.yaml` of a run, spaces of searches and their trials: all are rewritten before anything is
checked, and a note says the new spelling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from raycls.config.errors import Path, Problem, dotted
from raycls.config.names.builders import builtin
from raycls.config.yaml_text import Document

__all__ = ["MOVED", "moved", "moved_note", "rewrite"]

_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "optim": ("momentum", "nesterov", "betas", "eps", "alpha"),
    "schedule": ("every", "milestones", "gamma", "period_factor", "min_factor", "patience"),
    "loss": ("label_smoothing",),
}
MOVED: Mapping[str, str] = {
    **{f"{section}.{key}": f"{section}.args.{key}" for section, keys in _ARGUMENTS.items() for key in keys},
    "loss.task": "task.name",
}
"""The old path of an option, and the new one."""

_DEFAULT_NAMES = {"optim": "sgd", "schedule": "constant", "loss": "cross_entropy"}


def moved(path: str) -> str:
    """The path as it is now."""
    return MOVED.get(path, path)


def moved_note(paths: Iterable[str]) -> list[str]:
    """One line about the old `paths` that were used; none where there are none."""
    told = ", ".join(f"{MOVED[path]} for {path}" for path in dict.fromkeys(paths))
    return [f"options have moved, write {told}"] if told else []


def rewrite(document: Document) -> list[str]:
    """Rewrite the options of `document` that have moved, in place. Returns the old paths that someone wrote.

    What raycls printed before has every option, those too that the named thing does not take: they are left out.
    """
    used: list[str] = []
    for section in _ARGUMENTS:
        inner = document.values.get(section)
        if isinstance(inner, dict):
            used += _rewrite_section(document, section, cast("dict[str, Any]", inner))
    return used


def _rewrite_section(document: Document, section: str, inner: dict[str, Any]) -> list[str]:
    old = [path for path in MOVED if path.partition(".")[0] == section]
    printed = all(path.partition(".")[2] in inner for path in old)
    if printed:
        name = inner.get("name", _DEFAULT_NAMES[section])
        found = builtin(section, name) if isinstance(name, str) else None
        for key in _ARGUMENTS[section]:
            if found is not None and key not in found[1].parameters:
                del inner[key]
        _complete(document, section)
    used: list[str] = []
    for path in old:
        key = path.partition(".")[2]
        if key in inner:
            _move(document, (section, key), tuple(MOVED[path].split(".")))
            used.append(path)
    return [] if printed else used


def _complete(document: Document, section: str) -> None:
    """Write the options that there were none of when the document was printed."""
    place = document.places[section,]
    new: dict[Path, Any] = {(section, "args"): {}}
    if section == "loss":
        new |= {("loss", "name"): _DEFAULT_NAMES["loss"], ("task", "args"): {}}
    for path, value in new.items():
        _put(document.values, path, value)
        for depth in (1, 2):
            document.places.setdefault(path[:depth], place)


def _move(document: Document, old: Path, new: Path) -> None:
    place = document.places[old]
    value = document.values[str(old[0])].pop(old[1])
    if not _put(document.values, new, value):
        what = f"it is {dotted(new)} now, which is set too"
        document.problems.append(Problem(place, dotted(old), what, fix="keep one of the two"))
        return
    for depth in range(1, len(new)):
        document.places.setdefault(new[:depth], document.places.get(old[:1], place))
    for kept in (document.places, document.texts):
        inside = {path: kept.pop(path) for path in list(kept) if path[: len(old)] == old}
        kept.update({(*new, *path[len(old) :]): each for path, each in inside.items()})  # type: ignore[arg-type]


def _put(values: dict[str, Any], path: Path, value: Any) -> bool:
    """Set the value where there is none yet; whether that was so."""
    inner: dict[Any, Any] = values
    for key in path[:-1]:
        if inner.get(key) is None:
            inner[key] = {}
        if not isinstance(inner[key], dict):
            return False
        inner = inner[key]
    if path[-1] in inner:
        return False
    inner[path[-1]] = value
    return True
