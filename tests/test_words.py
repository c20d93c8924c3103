"""What raycls prints is in the field's words, and every error is a phrase: no capital, no full stop."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1] / "raycls"
_OTHERS = {
    r"\bmistakes?\b": "error",
    r"\b(goes|go|going|gone|went) on\b": "resume, continue",
    r"\bnewest checkpoint\b": "latest checkpoint",
    r"\bwhole numbers?\b": "integer",
    r"\b(nobody|whoever)\b": "say who, or use the passive",
    r"\[least, most\]": "[min, max]",
    r"\bthe same command\b.*\b(goes|resumes|continues)\b": "rerun the command to resume",
}
"""Words that are not the field's, and what its users search for."""
_NAMES = re.compile(r"(Python|Optuna|Ray|RAY_\w+|MLflow|HTTP)\b")
"""With what an error may begin beside a small letter, a digit or a value."""
_HOLE = "{}"


@cache
def _trees() -> dict[str, ast.Module]:
    return {str(file.relative_to(_ROOT)): ast.parse(file.read_text()) for file in sorted(_ROOT.rglob("*.py"))}


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else _HOLE for part in node.values)
    return ""


def _docstrings(tree: ast.Module) -> dict[int, ast.AST]:
    """Strings that stand alone, by identity, with what holds them."""
    return {
        id(statement.value): holder
        for holder in ast.walk(tree)
        if isinstance(holder, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in holder.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }


def _printed(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines and texts that a user may see: strings, options of the config, and the help of commands."""
    alone = _docstrings(tree)
    shown = ast.ClassDef if name.startswith("config/sections/") else ast.FunctionDef
    helps = name.startswith(("config/sections/", "cli/commands/"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            holder = alone.get(id(node))
            if holder is None or (helps and isinstance(holder, shown) and not holder.name.startswith("_")):
                yield node.lineno, _text(node)


def _errors(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What the errors of a module say is wrong."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = 2 if name in ("Problem", "bad") else 1 if name == "Finding" else 0
            if (name.endswith("Error") or place) and len(node.args) > place:
                yield from ((node.lineno, _text(each)) for each in _choices(node.args[place]))


def _choices(node: ast.expr) -> list[ast.expr]:
    return [*_choices(node.body), *_choices(node.orelse)] if isinstance(node, ast.IfExp) else [node]


@pytest.mark.parametrize(("pattern", "better"), _OTHERS.items())
def test_printed_words_are_those_of_the_field(pattern: str, better: str) -> None:
    found = [
        f"{name}:{line}: {text!r}"
        for name, tree in _trees().items()
        for line, text in _printed(name, tree)
        if re.search(pattern, text, re.IGNORECASE)
    ]
    assert not found, f"write {better}:\n" + "\n".join(found)


def test_errors_are_phrases() -> None:
    found = [
        f"{name}:{line}: {text!r}"
        for name, tree in _trees().items()
        for line, text in _errors(tree)
        if text and (re.search(r"[^.]\.$", text) or (text[0].isupper() and not _NAMES.match(text)))
    ]
    assert not found, "\n".join(found)


def test_the_check_sees_errors_options_and_help() -> None:
    errors = [text for tree in _trees().values() for _, text in _errors(tree)]
    assert "out of range" not in errors and "cannot read the data folder" in errors
    assert "the source {} requires a path" in errors
    printed = {name: " ".join(text for _, text in _printed(name, tree)) for name, tree in _trees().items()}
    assert "Training processes." in printed["config/sections/scale.py"]
    assert "Rerun" in printed["cli/commands/runs.py"] or "resumes" in printed["cli/commands/runs.py"]
