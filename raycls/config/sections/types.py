"""What the sections of a config are made of: their base class and the small types of their options."""

from __future__ import annotations

from typing import Annotated, Any, cast, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "Count",
    "Finite",
    "Fraction",
    "NotNegative",
    "Operation",
    "Positive",
    "RuleError",
    "Section",
    "Tuple",
    "UnderOne",
    "UpToOne",
    "child",
    "is_free",
    "named",
]


def _as_tuple(value: Any) -> Any:
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


Tuple = BeforeValidator(_as_tuple)  # YAML has lists, a frozen config has tuples
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UnderOne = Annotated[float, Field(ge=0, lt=1)]
UpToOne = Annotated[float, Field(gt=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Operation = str | dict[str, dict[str, Any]]


def named(entry: Operation) -> tuple[str, dict[str, Any]]:
    """The name of an operation and its arguments."""
    nothing: tuple[str, dict[str, Any]] = ("", {})
    return (entry, {}) if isinstance(entry, str) else next(iter(entry.items()), nothing)


class Section(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


class RuleError(ValueError):
    """A rule over several options is broken, and `fix` is what to type instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.fix = fix

    def __str__(self) -> str:
        return str(self.args[0])


def child(model: type[Section], key: str) -> type[Section] | None:
    """The section under `key`, or None where `key` is an option."""
    annotation = model.model_fields[key].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def is_free(model: type[Section], key: str) -> bool:
    """Whether the option holds a mapping whose keys are not ours, such as `args`."""
    return get_origin(model.model_fields[key].annotation) is dict
