"""What a Python file defines, read from its text: nothing is imported, so nothing runs and nothing is waited for."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["Definition", "Definitions", "Unknown", "ours", "read"]

Scope = Sequence[ast.stmt]


@dataclass(frozen=True)
class Definition:
    """One name of a file. `signature` is how it is called, as it is written; `certain`: and nothing can change that.

    `module` and `level` (dots before it) are where an imported name comes from.
    """

    kind: Literal["function", "class", "value", "import"]
    signature: inspect.Signature | None = None
    certain: bool = False
    decorators: tuple[str, ...] = ()
    module: str = ""
    level: int = 0


@dataclass(frozen=True)
class Definitions:
    """The names at the top of a file. `dynamic`: there may be more of them, made while it runs."""

    names: dict[str, Definition]
    dynamic: bool
    classes: dict[str, Definitions]
    """What each class holds."""


class Unknown:
    """A default value that only running the file would tell; shown as it is written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


@cache
def read(file: str) -> Definitions | None:
    """The definitions of a Python file; None where it cannot be read, which importing it tells better.

    Raises SyntaxError where it is no Python.
    """
    try:
        with open(file, "rb") as stream:
            tree = ast.parse(stream.read(), os.path.basename(file))
    except (OSError, ValueError, RecursionError):
        return None
    return _scope(tree.body)


def ours(target: str) -> Definition | None:
    """The definition of a `module:attribute` of raycls; None where its file cannot be found."""
    module, _, attribute = target.partition(":")
    found = read(str(Path(__file__).parents[2].joinpath(*module.split(".")[1:]).with_suffix(".py")))
    return None if found is None else found.names.get(attribute)


def _scope(body: Scope) -> Definitions:
    names: dict[str, Definition] = {}
    classes: dict[str, Definitions] = {}
    dynamic = False
    for node in _statements(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = _function(node)
            dynamic |= node.name == "__getattr__"
        elif isinstance(node, ast.ClassDef):
            classes[node.name] = _scope(node.body)
            names[node.name] = _class(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                names[name] = Definition("import", module=alias.name)
        elif isinstance(node, ast.ImportFrom):
            dynamic |= any(alias.name == "*" for alias in node.names)
            for alias in node.names:
                names[alias.asname or alias.name] = Definition("import", module=node.module or "", level=node.level)
        else:
            dynamic |= _may_define(node)
            names |= {name: Definition("value") for name in _assigned(node)}
    return Definitions(names, dynamic, classes)


def _statements(body: Scope) -> Iterator[ast.stmt]:
    """The statements that run where `body` does, those inside `if`, `try`, `with` and loops too."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)
        for case in getattr(node, "cases", []):
            yield from _statements(case.body)


def _assigned(node: ast.stmt) -> Iterable[str]:
    """Names that the statement itself gives values to."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For):
        targets = [node.target]
    elif isinstance(node, ast.With):
        targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
    return [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]


def _may_define(node: ast.stmt) -> bool:
    """Whether the statement may make names that are not written in it."""
    calls = (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return bool(names & {"globals", "vars", "exec", "setattr"}) or any(
        isinstance(call, ast.Attribute) and call.attr == "__setattr__" for call in calls
    )


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Definition:
    written = signature(node.args).replace(return_annotation=_text(node.returns))
    return Definition("function", written, not node.decorator_list, tuple(map(ast.unparse, node.decorator_list)))


def _class(node: ast.ClassDef) -> Definition:
    """How the class is called is certain where its own `__init__` says that and nothing else can."""
    methods = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    if "__init__" not in methods:
        return Definition("class")
    started = methods["__init__"]
    whole = signature(started.args)
    own = whole.replace(parameters=list(whole.parameters.values())[1:])
    plain = not (node.decorator_list or node.keywords or started.decorator_list or "__new__" in methods)
    return Definition("class", own, plain)


def signature(arguments: ast.arguments) -> inspect.Signature:
    """The signature that a `def` with these arguments has."""
    kinds = inspect.Parameter
    parameters: list[inspect.Parameter] = []
    positional = [*arguments.posonlyargs, *arguments.args]
    first = len(positional) - len(arguments.defaults)
    for index, argument in enumerate(positional):
        kind = kinds.POSITIONAL_ONLY if index < len(arguments.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD
        default = _default(arguments.defaults[index - first]) if index >= first else kinds.empty
        parameters.append(inspect.Parameter(argument.arg, kind, default=default, annotation=_text(argument.annotation)))
    if arguments.vararg is not None:
        parameters.append(inspect.Parameter(arguments.vararg.arg, kinds.VAR_POSITIONAL))
    for argument, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = kinds.empty if node is None else _default(node)
        parameters.append(
            inspect.Parameter(argument.arg, kinds.KEYWORD_ONLY, default=default, annotation=_text(argument.annotation))
        )
    if arguments.kwarg is not None:
        parameters.append(inspect.Parameter(arguments.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _default(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Unknown(ast.unparse(node))


def _text(node: ast.expr | None) -> str:
    if node is None:
        return ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
