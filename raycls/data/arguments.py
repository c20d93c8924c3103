"""Arguments of a built-in source against the types that its signature names, before any data is looked at."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from raycls.config.write import flow
from raycls.errors import ConfigError

__all__ = ["check_types"]

_WORDS = {
    "Mapping[str, str | None]": "a mapping of texts",
    "Mapping[str, str]": "a mapping of texts",
    "Sequence[str]": "a list of texts",
    "str": "text",
    "None": "null",
    " | ": ", or ",
}
"""Types as messages name them, the longer ones first."""


def check_types(source: Callable[..., Any], args: Mapping[str, Any], *, where: str) -> None:
    """ConfigError that names the first of `args` that is not of the type that the signature of `source` names."""
    hints = get_type_hints(source)
    for name, value in args.items():
        try:
            TypeAdapter(hints.get(name, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            valid = str(inspect.signature(source).parameters[name].annotation)
            for words in _WORDS.items():
                valid = valid.replace(*words)
            raise ConfigError(
                f"{where}.{name} is of the wrong type",
                where=f"{where}.{name}",
                found=flow(value),
                valid=valid,
                fix='a text that reads as something else, such as a number, stands in quotes: "2019"',
            ) from error
