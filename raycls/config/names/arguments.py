"""Arguments of a config against the signature of what they are for, before anything is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raycls.config.names.suggest import suggest
from raycls.errors import ConfigError

__all__ = ["bind", "bind_signature"]


def bind(function: Callable[..., Any], args: Mapping[str, Any], *, given: Sequence[str] = (), where: str) -> None:
    """Check that `function` can be called with `args` and with `given`, all by keyword, without calling it.

    `given` are the names that raycls passes itself; `where` is the dotted path of `args` in the config.
    A callable that does not tell its signature passes. Raises ConfigError that names every argument that
    is unknown, missing, or raycls's own.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have none
        return
    bind_signature(_title(function), signature, args, given=given, where=where)


def bind_signature(
    title: str, signature: inspect.Signature, args: Mapping[str, Any], *, given: Sequence[str] = (), where: str
) -> None:
    """`bind` for the signature of a callable that messages name `title`."""
    parameters = signature.parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    choices = [key for key in named if key not in given]
    problems: list[str] = []
    hints: list[str] = []
    for key in args:
        if key in given:
            problems.append(f"{key} is set by raycls")
            hints.append(f"leave {where}.{key} out")
        elif key not in named and not takes_any:
            problems.append(f"there is no argument {key}")
            near = suggest(key, choices)
            hints += [] if near is None else [f"did you mean {where}.{near}?"]
            if near is None and where.endswith(".args"):
                hints.append(f"take {key} out; on the command line {where}={{}} drops what a file sets")
    problems += [
        f"the argument {parameter.name} is missing"
        for parameter in parameters
        if parameter.default is parameter.empty and not _met(parameter, args, given)
    ]
    if not takes_any:
        problems += [f"it must take the argument {key}, which raycls passes" for key in given if key not in named]
    if problems:
        valid = ", ".join(_shown(named[key]) for key in choices) or "no arguments"
        raise ConfigError(
            f"{where}: these arguments do not fit {title}: {'; '.join(problems)}",
            where=where,
            found=", ".join(args) or "no arguments",
            valid=valid + (", and any other" if takes_any else ""),
            fix="; ".join(dict.fromkeys(hints)) or None,
        )


def _met(parameter: inspect.Parameter, args: Mapping[str, Any], given: Sequence[str]) -> bool:
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return True
    return parameter.kind is not parameter.POSITIONAL_ONLY and (parameter.name in args or parameter.name in given)


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return parameter.name
    text = repr(parameter.default)
    return f"{parameter.name}={text}" if len(text) <= 30 else parameter.name


def _title(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
