"""Options of the task: what is optimised and measured."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from raycls.config.sections.types import Section

__all__ = ["LossConfig", "TaskConfig"]


class TaskConfig(Section):
    """What a sample is, what is minimised and what is measured."""

    name: Annotated[str, Field(min_length=1)] = "classification"
    """`classification` (one label per image), an entry point, or `package.module:Class`, a subclass of
    `raycls.tasks.base.Task`."""
    args: dict[str, Any] = {}
    """Further arguments of the task."""


class LossConfig(Section):
    """What is minimised."""

    name: Annotated[str, Field(min_length=1)] = "cross_entropy"
    """`cross_entropy`, an entry point, or `package.module:attribute` (called with `args`, returns a function from
    logits and labels to their loss, summed over the samples)."""
    args: dict[str, Any] = {}
    """Further arguments of the loss. `cross_entropy`: `label_smoothing` (0), the weight given to the uniform
    distribution (Szegedy et al. 2016, section 7)."""
