"""The remedies that raycls prints, found in its source: which of them can be typed, and what they look like."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Remedy", "catalogue"]

_ROOT = Path(__file__).parents[2] / "raycls"
_NAMES = re.compile(r"fix|fixes|remedy|hints?|\w*_remedy|\w+_fix")
_FUNCTIONS = re.compile(r"\w*(?:remedy|leaving_out|leave_out|_fix|_for_null|_written|as_options)\w*")
_CALLS = {"override", "leaving_out", "leave_out", "_leave_out", "word", "quote", "join", "_written", "as_options"}
_COMMANDS = "train|eval|prune|init|config|search|submit|status|logs|stop|ledger|doctor|cluster|demo"
_TYPED = re.compile(
    rf"\b[a-z_]+(?:\.[a-z_]+)+=\S|(?<!\S)`?--[a-z]|\braycls (?:{_COMMANDS})\b|"
    r"\b(?:pip install|chmod|kubectl|rm|wandb sync) "
)
HOLE = "{}"


@dataclass(frozen=True)
class Remedy:
    """A text that is printed as a fix. `text` has {} where a value stands; `typed`: it holds something to be typed."""

    site: str
    """`session/prepare.py:prepare`."""
    text: str
    typed: bool

    def matches(self, fix: str) -> bool:
        """Whether `fix` is, or holds, this text with values in it."""
        pattern = ".*".join(map(re.escape, self.text.split(HOLE)))
        return re.search(pattern, fix, re.DOTALL) is not None


@cache
def catalogue() -> tuple[Remedy, ...]:
    """Every remedy of raycls, once."""
    found = (remedy for file in sorted(_ROOT.rglob("*.py")) for remedy in _of(file))
    return tuple(dict.fromkeys(found))


def _of(file: Path) -> Iterator[Remedy]:
    tree = ast.parse(file.read_text())
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    nodes = list(_walk(tree, ""))
    local: dict[str, dict[str, ast.expr]] = {}
    for function, node in nodes:
        if isinstance(node, ast.Assign) and function:
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            local.setdefault(function, {}).update(dict.fromkeys(names, node.value))
    makers = {
        inner.func.id
        for function, node in nodes
        for value in _fixes(node, function, set())
        for inner in ast.walk(value)
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)
    }
    for function, node in nodes:
        for value in _fixes(node, function, makers):
            for text, call in _texts(value, constants | local.get(function, {})):
                if text.strip(HOLE + " ") or call:
                    site = f"{file.relative_to(_ROOT)}:{function}"
                    yield Remedy(site, text, call or _TYPED.search(text) is not None)


def _walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield inside, child
        yield from _walk(child, inside)


def _fixes(node: ast.AST, function: str, makers: set[str]) -> Iterator[ast.expr]:
    """The expressions at `node` that become a fix; `makers` are functions that are called for one."""
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "fix")
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("Problem", "_WrongError", "Row") and len(node.args) > (3 if name == "Row" else 5):
            yield node.args[3 if name == "Row" else 5]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "append" and _named(node.func.value):
            yield from node.args
    elif isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(map(_named, targets)):
            yield node.value
    elif isinstance(node, ast.Return) and node.value is not None and _makes(function, makers):
        yield node.value


def _makes(function: str, makers: set[str]) -> bool:
    return function in makers or _FUNCTIONS.fullmatch(function) is not None


def _named(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return _NAMES.fullmatch(name) is not None


def _texts(node: ast.expr, constants: dict[str, ast.expr]) -> list[tuple[str, bool]]:
    """Each text that the expression can give, and whether it holds what a function made for typing."""
    if isinstance(node, ast.Constant):
        return [(node.value, False)] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return _joined(
            [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values], constants
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined([node.left, node.right], constants)
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, constants), *_texts(node.orelse, constants)]
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in _texts(value, constants)]
    if isinstance(node, ast.List | ast.Tuple):
        return [text for value in node.elts for text in _texts(value, constants)]
    if isinstance(node, ast.Name) and node.id in constants:
        return _texts(constants[node.id], {name: value for name, value in constants.items() if name != node.id})
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        return [(HOLE, name in _CALLS)] if name in _CALLS else []
    return []


def _joined(parts: list[ast.expr], constants: dict[str, ast.expr]) -> list[tuple[str, bool]]:
    texts, typed = "", False
    for part in parts:
        inner = _texts(part, constants)
        text, call = inner[0] if len(inner) == 1 else (HOLE, any(each[1] for each in inner))
        texts, typed = texts + text, typed or call
    return [(texts, typed)]
