"""Errors cross processes: every kind survives pickling and JSON, with each of its lines."""

from __future__ import annotations

import ast
import copy
import errno
import importlib
import json
import os
import pickle
from pathlib import Path

import pytest

import raycls
from raycls.errors import (
    EXIT_DATA,
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
    CheckpointError,
    ConfigError,
    DataError,
    LaunchError,
    ModelError,
    OutageError,
    RayclsError,
    TrainError,
    from_json,
    kind_and_line,
    one_line,
    to_json,
)

_CODES = {
    RayclsError: EXIT_FAILED,
    ConfigError: EXIT_USAGE,
    DataError: EXIT_DATA,
    OutageError: EXIT_STOPPED,
    ModelError: EXIT_USAGE,
    TrainError: EXIT_FAILED,
    CheckpointError: EXIT_FAILED,
    LaunchError: EXIT_FAILED,
}
_KINDS = sorted(_CODES, key=lambda kind: kind.__name__)


def _full(kind: type[RayclsError]) -> RayclsError:
    return kind("a thing is wrong", where="a.yaml:3", found="ä", valid="1 to 3", fix="")


def _defined_elsewhere() -> list[type[RayclsError]]:
    """Kinds of errors that other modules of the package define, found without importing what needs not be."""
    root, found = Path(raycls.__path__[0]), []
    names = {kind.__name__ for kind in _KINDS}
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and names & {getattr(base, "id", "") for base in node.bases}:
                module = importlib.import_module(".".join(["raycls", *file.relative_to(root).with_suffix("").parts]))
                found.append(getattr(module, node.name))
    return [kind for kind in found if kind.__module__ != "raycls.errors"]


@pytest.mark.parametrize("kind", _KINDS)
def test_pickles(kind: type[RayclsError]) -> None:
    error = _full(kind)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert again.to_dict() == error.to_dict()
        assert str(again) == str(error)
        assert again.args == error.args
    assert copy.deepcopy(error).to_dict() == error.to_dict()


@pytest.mark.parametrize("kind", _KINDS)
def test_goes_through_json(kind: type[RayclsError]) -> None:
    for error in (_full(kind), kind("only this")):
        again = from_json(json.loads(json.dumps(to_json(error))))
        assert type(again) is kind
        assert again.to_dict() == error.to_dict()
        assert again.exit_code == _CODES[kind]


def test_the_number_of_the_systems_error_goes_through_json() -> None:
    """A full disk of a worker is a full disk for the driver."""
    error = RayclsError("it cannot be written")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    cause = from_json(json.loads(json.dumps(to_json(error)))).__cause__
    assert isinstance(cause, OSError) and cause.errno == errno.ENOSPC
    error.__cause__ = ValueError("another")
    assert from_json(to_json(error)).__cause__ is None


def test_kinds_of_other_modules_survive() -> None:
    """They pickle as themselves, and keep their text and exit code in JSON."""
    kinds = _defined_elsewhere()
    assert "ConfigProblemsError" in [kind.__name__ for kind in kinds]
    for kind in kinds:
        error = _sample(kind)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error)
        travelled = from_json(json.loads(json.dumps(to_json(error))))
        assert (travelled.exit_code, str(travelled)) == (error.exit_code, str(error))


def _sample(kind: type[RayclsError]) -> RayclsError:
    if kind.__name__ == "ConfigProblemsError":
        from raycls.config.load import from_dict

        with pytest.raises(kind) as caught:
            from_dict({"scale": {"workers": -1}})
        return caught.value
    return kind("a thing is wrong", found="this")


def test_unknown_kind_becomes_the_general_one() -> None:
    error = from_json({"kind": "NoSuchError", "what": "a thing", "found": "x"})
    assert type(error) is RayclsError
    assert (error.what, error.found, error.where) == ("a thing", "x", None)


def test_text_has_a_line_for_each_part() -> None:
    error = DataError("no images", where="photos", fix="look elsewhere")
    assert str(error) == "no images\n  where: photos\n  fix:   look elsewhere"


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (ValueError("one"), "ValueError: one", "one"),
        (ValueError("one\n  two  \n\n"), "ValueError: one", "two"),
        (KeyError("width"), "KeyError: 'width'", "'width'"),
        (TimeoutError(), "TimeoutError: ", "TimeoutError"),
        (ValueError("x" * 400), "ValueError: " + "x" * 400, "x" * 300),
    ],
)
def test_an_error_of_a_library_in_one_line(error: Exception, first: str, last: str) -> None:
    assert (kind_and_line(error), one_line(error)) == (first, last)
