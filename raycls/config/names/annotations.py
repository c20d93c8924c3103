"""Types of arguments: an annotation as it is written in a file, and a value that is checked against it.

Nothing is imported for it. An annotation made of other names than those below says nothing before its file runs.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails

from raycls.config.errors import Path
from raycls.config.names.definitions import Unknown
from raycls.config.sections import types
from raycls.config.sections.duration import Duration

__all__ = ["checked", "defaults", "inside", "json_schema", "typed"]

_ALIASES = ("Count", "Finite", "Fraction", "NotNegative", "Positive", "UnderOne", "UpToOne")
_NAMES: Mapping[str, Any] = {
    **{kind.__name__: kind for kind in (int, float, str, bool, tuple, list, dict, Duration)},
    **{name: getattr(types, name) for name in _ALIASES},
    "Annotated": Annotated,
    "Any": Any,
    "Field": Field,
    "Literal": Literal,
    "Sequence": Sequence,
}
"""What an annotation or a default may be made of."""


def typed(signature: inspect.Signature, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The type of each parameter whose annotation tells one; `names` are those of the file, once it has been run."""
    told: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        written = parameter.annotation
        if written is parameter.empty or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        kind = _meaning(written, {**(names or {}), **_NAMES}) if isinstance(written, str) else written
        if kind is not Any and _adapter(kind) is not None:
            told[parameter.name] = kind
    return told


def defaults(signature: inspect.Signature) -> dict[str, Any]:
    """The default of each parameter that has one, as far as the text of the file tells it."""
    found: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        value = parameter.default
        if isinstance(value, Unknown):
            value = _meaning(repr(value), _NAMES)
        if value is not parameter.empty and value is not Any:
            found[parameter.name] = value
    return found


def checked(kind: Any, value: Any) -> tuple[Any, list[ErrorDetails]]:
    """`value` as the type has it (lists as tuples, durations as `Duration`), and what is wrong with it."""
    adapter = _adapter(kind)
    if adapter is None:
        return value, []
    try:
        return adapter.validate_python(_tuples(value) if _is_tuple(kind) else value), []
    except ValidationError as error:
        return value, error.errors(include_url=False)


def inside(path: Path, value: Any, errors: Sequence[ErrorDetails]) -> Path:
    """`path` of a value, or of the item in it that `errors` are about."""
    item = next((step for step in errors[0]["loc"] if isinstance(step, int)), None)
    return path if item is None or not isinstance(value, (list, tuple)) else (*path, item)


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type that `typed` gave."""
    adapter = _adapter(kind)
    return {} if adapter is None else adapter.json_schema()


def _meaning(text: str, names: Mapping[str, Any]) -> Any:
    """What an expression stands for; `Any` where these names do not tell."""
    try:
        return _value(ast.parse(text, mode="eval").body, names)
    except (SyntaxError, LookupError, TypeError, ValueError):
        return Any


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.Attribute):  # typing.Annotated, pydantic.Field
        return _NAMES[node.attr]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, names)
    if isinstance(node, ast.Tuple):
        return tuple(_value(item, names) for item in node.elts)
    if isinstance(node, ast.Subscript):
        return _value(node.value, names)[_value(node.slice, names)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _value(node.left, names) | _value(node.right, names)
    if isinstance(node, ast.Call) and _value(node.func, names) in (Field, Duration):
        given = {str(keyword.arg): _value(keyword.value, names) for keyword in node.keywords}
        return _value(node.func, names)(*(_value(item, names) for item in node.args), **given)
    raise ValueError(ast.unparse(node))


def _adapter(kind: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached(kind)
    except TypeError:  # metadata that cannot be hashed
        return _made(kind)


def _made(kind: Any) -> TypeAdapter[Any] | None:
    try:  # a dataclass has a configuration of its own
        return TypeAdapter(kind) if kind is Duration else TypeAdapter(kind, config=ConfigDict(strict=True))
    except PydanticUserError:  # a type that pydantic does not know, such as a tensor
        return None


_cached = cache(_made)


def _is_tuple(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        return _is_tuple(get_args(kind)[0])
    return get_origin(kind) is tuple or any(_is_tuple(member) for member in get_args(kind))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, cast("list[Any]", value))) if isinstance(value, list) else value
