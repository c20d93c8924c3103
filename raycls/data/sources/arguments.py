"""Arguments of a built-in source against the types that its signature names, before any data is looked at."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from raycls.config.write import flow
from raycls.errors import ConfigError

__all__ = ["check_types"]

_WORDS = {
    "Mapping[str, str | None]": "a mapping of strings",
    "Mapping[str, str]": "a mapping of strings",
    "Sequence[str]": "a list of strings",
    "str": "a string",
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
            annotation = str(inspect.signature(source).parameters[name].annotation)
            valid = re.sub("|".join(map(re.escape, _WORDS)), lambda found: _WORDS[found[0]], annotation)
            raise ConfigError(
                f"{where}.{name} is of the wrong type",
                where=f"{where}.{name}",
                found=flow(value),
                valid=valid,
                fix='put a string that reads as a number in quotes: "2019"',
            ) from error
