"""Options of the optimizer and of the learning rate over time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, Fraction, NotNegative, Positive, Section, Tuple

__all__ = ["OptimConfig", "ScheduleConfig"]


class OptimConfig(Section):
    """The optimizer."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    """The algorithm, torch's."""
    lr: Positive = 0.1
    """Highest learning rate; it is never scaled by the number of workers."""
    weight_decay: NotNegative = 0.0
    """L2 for sgd, adam and rmsprop; decoupled for adamw."""
    weight_decay_on: Literal["all", "weights"] = "all"
    """`weights` leaves biases and normalisation parameters (those with one dimension) undecayed."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For sgd and rmsprop."""
    nesterov: bool = False
    """For sgd."""
    betas: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Tuple] = (
        0.9,
        0.999,
    )
    """For adam and adamw."""
    eps: Positive = 1e-8
    """For adam, adamw and rmsprop."""
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Smoothing constant of rmsprop."""
    clip_norm: Positive | Literal["off"] = "off"
    """Largest L2 norm of the whole gradient; a longer one is scaled down."""
    ema: Annotated[float, Field(gt=0, lt=1)] | Literal["off"] = "off"
    """Decay per step of an exponential moving average of the weights, which is then evaluated and kept."""
    ema_warmup: Literal["ramp", "off"] = "ramp"
    """For ema: how the average begins. `ramp`: its decay after t updates is at most (1 + t) / (10 + t), so that it soon
    forgets the first weights. `off`: `optim.ema` from the first update on."""

    @model_validator(mode="after")
    def _across(self) -> OptimConfig:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum greater than 0, for example 0.9")
        return self


class ScheduleConfig(Section):
    """The learning rate over time, as a factor of `optim.lr`."""

    name: Literal["constant", "step", "multistep", "exponential", "cosine", "cosine_restarts", "plateau"] = "constant"
    """Its shape after the warm-up."""
    warmup: Duration = Duration(0, "st")
    """Linear from 0 to `optim.lr` over this time."""
    every: Duration = Duration(30, "ep")
    """For step: between two multiplications by gamma. For cosine_restarts: the first period."""
    milestones: Annotated[tuple[Duration, ...], Tuple] = ()
    """For multistep: when to multiply by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """For step, multistep and plateau; for exponential the factor per epoch."""
    period_factor: Annotated[float, Field(ge=1)] = 1.0
    """For cosine_restarts: each period is this much longer than the one before."""
    min_factor: Fraction = 0.0
    """For cosine, cosine_restarts and plateau: the lowest factor of `optim.lr`."""
    patience: Count = 3
    """For plateau: evaluations without improvement before the rate drops."""
