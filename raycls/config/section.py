"""What the sections of a config are made of: their base class and the small types of their options."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Count", "Finite", "Fraction", "NotNegative", "Operation", "Positive", "Section", "Tuple"]


def _as_tuple(value: Any) -> Any:
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


Tuple = BeforeValidator(_as_tuple)  # YAML has lists, a frozen config has tuples
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Operation = str | dict[str, dict[str, Any]]


class Section(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )
