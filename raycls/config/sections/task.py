"""Options of the task: what is optimised and measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from raycls.config.sections.types import Section

__all__ = ["LossConfig", "TaskConfig"]


class TaskConfig(Section):
    """What a sample is, what is minimised and what is measured."""

    name: Annotated[str, Field(min_length=1)] = "classification"
    """`classification` (one label per image), an entry point, or `package.module:attribute`."""
    args: dict[str, Any] = {}
    """Further arguments of the task."""


class LossConfig(Section):
    """What is minimised."""

    task: Literal["classification"] = "classification"
    """Cross entropy over one label per image."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight given to the uniform distribution (Szegedy et al. 2016, section 7)."""
