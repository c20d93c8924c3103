"""JSON that any parser reads: no bare NaN or Infinity, and numbers of other libraries as plain ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["NOT_FINITE", "dumps", "plain"]

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""What `plain` makes texts of, to be read back where a number is expected."""


def dumps(value: object, *, indent: int | None = None) -> str:
    """`value` as strict JSON text. NaN and infinities become the texts "nan", "inf" and "-inf"."""
    separators = (",", ":") if indent is None else (",", ": ")
    tree = plain(value)
    text = json.dumps(tree, allow_nan=False, ensure_ascii=False, indent=indent, separators=separators)
    try:
        text.encode()
    except UnicodeEncodeError:  # part of a file name that is no UTF-8
        return json.dumps(tree, allow_nan=False, indent=indent, separators=separators)
    return text


def plain(value: object) -> Any:
    """`value` made of dict, list, str, int, finite float, bool and None alone.

    Scalars of numpy and torch are taken over through their `item()`. Raises TypeError for anything else.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    item = getattr(value, "item", None)
    if callable(item):
        return plain(item())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
