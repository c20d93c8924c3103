"""`path=value` on the command line: one more layer over the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

from raycls.config import describe
from raycls.config.errors import COMMAND_LINE, Path, Place, Problem, dotted
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section
from raycls.config.strings import as_written, is_text
from raycls.config.uri_secrets import hidden
from raycls.config.write import override
from raycls.config.yaml_text import Document, parse_text, read_value

__all__ = ["read_override", "read_overrides"]

_PATH = re.compile(r"[^\s.=\[\]]+(?:\.[^\s.=\[\]]+)*")
_PLACE = Place(COMMAND_LINE)


def read_overrides(overrides: Sequence[str]) -> list[Document]:
    """Each override as a document of its own; of two for one path the later one holds."""
    return [read_override(text) for text in overrides]


def read_override(text: str) -> Document:
    """`optim.lr=3e-4` as nested values. The value is YAML: a scalar, `[a, list]` or `{a: mapping}`; where the option is
    text, it is what was typed."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not _PATH.fullmatch(name):
        what = "an override is path=value"
        return _refused(Problem(_PLACE, "", what, hidden(repr(text)), fix="for example optim.lr=3e-4 scale.workers=4"))
    path = tuple(name.split("."))
    problem = _misplaced(path)
    if problem is not None:
        return _refused(problem)
    try:
        parsed, texts = (parse_text(value), {}) if is_text(name) else read_value(value)
    except ValueError as error:
        fix = f"for a string, write {override(name, value)}" if _is_argument(path) else None
        return _refused(Problem(_PLACE, name, str(error), hidden(value), fix=None if fix is None else hidden(fix)))
    nested: Any = parsed
    for key in reversed(path):
        nested = {key: nested}
    document = Document(values=nested, texts={(*path, *inner): text for inner, text in texts.items()})
    for depth in range(1, len(path) + 1):
        document.places[path[:depth]] = _PLACE
    _mark(parsed, path, document)
    return as_written(document)


def _misplaced(path: tuple[str, ...]) -> Problem | None:
    """An error where the path goes on below a value, or names what only a file can say."""
    if path[0] == "extends":
        return Problem(_PLACE, "extends", "only a file can extend another one", fix="put extends into the file")
    model: type[Section] = Run
    for depth, key in enumerate(path):
        if key not in model.model_fields:
            return None  # an unknown key, which the check of all keys reports with what is near
        section = describe.child(model, key)
        if section is not None:
            model = section
            continue
        rest = path[depth + 1 :]
        if rest and not describe.is_free(model, key):
            option = dotted(path[: depth + 1])
            valid = describe.allowed(path[: depth + 1])[0]
            what = f"{option} is one value and has no {rest[0]!r}"
            return Problem(_PLACE, dotted(path), what, valid=valid, fix=f"set the whole of {option}")
        return None
    return None


def _is_argument(path: tuple[str, ...]) -> bool:
    """Whether the path is a key of a free mapping, such as `model.args`, which may be any text."""
    model: type[Section] | None = Run
    for key in path[:-1]:
        if model is None or key not in model.model_fields:
            return False
        if describe.is_free(model, key):
            return True
        model = describe.child(model, key)
    return False


def _mark(value: Any, path: Path, document: Document) -> None:
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        inner = cast("dict[str | int, Any]", value).items()
    elif isinstance(value, list):
        inner = enumerate(cast("list[Any]", value))
    for key, item in inner:
        document.places[(*path, key)] = _PLACE
        _mark(item, (*path, key), document)


def _refused(problem: Problem) -> Document:
    return Document(problems=[problem])
