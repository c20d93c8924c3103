"""Options of fine-tuning: what is trained when, and how fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, Positive, Section, UpToOne

__all__ = ["FinetuneConfig", "Patterns"]


def _as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)]
"""One or several of: a layer (`layer4`, with all inside it), a pattern of them (`layer[34]*`), `head`, `all`."""


class FinetuneConfig(Section):
    """Which parameters are trained when, and how fast.

    A part of the network is named by a path (`layer4`, with all that is inside), a pattern (`layer[34]`, `*.bn1`), the
    word `head` (the layer that gives the logits) or `all`.
    """

    freeze: Count | Patterns = ()
    """What is not trained: parts of the network, or how many of its first layers."""
    unfreeze: dict[str, Patterns] = {}
    """What is trained from when on: `{0ep: head, 3ep: layer4, 6ep: all}`. Durations are epochs, steps or per cent of
    the run. Alone, all else is frozen; beside `freeze` it ends what that froze."""
    lr_scale: dict[str, Positive] = {}
    """Factors of the learning rate of parts: `{head: 1, "*": 0.01}`. Of several that fit a parameter, the one that fits
    the fewest decides."""
    layer_decay: UpToOne | Literal["off"] = "off"
    """Layer-wise decay of the learning rate: the last layer has all of it, each one before it this part of the next."""
    frozen_norm: Literal["frozen_layers", "all", "off"] = "frozen_layers"
    """Which batch-norm layers use their running statistics in training and leave them as they are: those whose
    parameters are frozen, all of them, or none."""

    @model_validator(mode="after")
    def _times(self) -> FinetuneConfig:
        for text in self.unfreeze:
            try:
                time = Duration.parse(text)
            except ValueError as error:
                raise ValueError(f"unfreeze: {text}: {error}") from None
            if time.seconds is not None:
                raise ValueError(f"unfreeze is counted in epochs (3ep), steps (500st) or per cent (50%): {text} is not")
        return self

    @property
    def stages(self) -> tuple[tuple[Duration, tuple[str, ...]], ...]:
        """`unfreeze` as durations, in the order in which they are written."""
        return tuple((Duration.parse(text), patterns) for text, patterns in self.unfreeze.items())
