"""One type for "how long" and "how often": `90ep`, `5000st`, `10%`, `2h`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

__all__ = ["Duration"]

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ep|st|%|s|m|h|d)\s*")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Duration:
    """A length of training: `value` epochs (`ep`), steps (`st`), per cent of the run (`%`), or time.

    Times are written in `s`, `m`, `h` or `d`. Epochs may be fractions (`0.5ep`), steps may not.
    """

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read `90ep`, `5000st`, `10%`, `90s`, `15m`, `2h` or `1d`; ValueError says what is allowed."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError("a duration is a number with a unit: 90ep, 5000st, 10%, 90s, 15m, 2h or 1d")
        value, unit = float(match[1]), match[2]
        if unit == "st" and not value.is_integer():
            raise ValueError("steps are whole: write 5000st, not a fraction of a step")
        return cls(value, unit)

    @property
    def seconds(self) -> float | None:
        """The time in seconds, or None where the duration counts epochs, steps or per cent."""
        factor = _SECONDS.get(self.unit)
        return None if factor is None else self.value * factor

    def steps(self, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """The number of steps, rounded to the nearest one.

        Per cent are of `total_steps`. A time has no number of steps: ValueError.
        """
        if self.unit == "st":
            return int(self.value)
        if self.unit == "ep":
            return round(self.value * steps_per_epoch)
        if self.unit == "%" and total_steps is not None:
            return round(self.value * total_steps / 100)
        raise ValueError(f"{self} cannot be counted in steps here")

    def epochs(self, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """`steps` in whole epochs, rounded to the nearest number, up from the middle."""
        return (2 * self.steps(steps_per_epoch, total_steps) + steps_per_epoch) // (2 * steps_per_epoch)

    def __str__(self) -> str:
        return f"{int(self.value) if float(self.value).is_integer() else self.value!r}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Duration:
            if isinstance(value, Duration):
                return value
            if not isinstance(value, str):
                raise ValueError("a duration is a number with a unit: 90ep, 5000st, 10%, 90s, 15m, 2h or 1d")
            return cls.parse(value)

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": r"^\d+(\.\d+)?(ep|st|%|s|m|h|d)$", "examples": ["90ep", "5000st", "2h"]}
