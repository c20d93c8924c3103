"""Options of the optimizer and of the learning rate over time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import NotNegative, Positive, Section

__all__ = ["OptimConfig", "ScheduleConfig"]


class OptimConfig(Section):
    """The optimizer."""

    name: Annotated[str, Field(min_length=1)] = "sgd"
    """`sgd`, `adam`, `adamw`, `rmsprop` (torch's), an entry point, or `package.module:attribute` (called with the
    parameter `groups`, `lr` and `args`, returns a `torch.optim.Optimizer`)."""
    lr: Positive = 0.1
    """Highest learning rate; it is never scaled by the number of workers."""
    weight_decay: NotNegative = 0.0
    """L2 for sgd, adam and rmsprop; decoupled for adamw."""
    weight_decay_on: Literal["all", "weights"] = "all"
    """`weights` leaves biases and normalisation parameters (those with one dimension) undecayed."""
    clip_norm: Positive | Literal["off"] = "off"
    """Largest L2 norm of the whole gradient; a longer one is scaled down."""
    ema: Annotated[float, Field(gt=0, lt=1)] | Literal["off"] = "off"
    """Decay per step of an exponential moving average of the weights, which is then evaluated and kept."""
    ema_warmup: Literal["ramp", "off"] = "ramp"
    """For ema: how the average begins. `ramp`: its decay after t updates is at most (1 + t) / (10 + t), so that it soon
    forgets the first weights. `off`: `optim.ema` from the first update on."""
    args: dict[str, Any] = {}
    """Further arguments of the optimizer. `sgd`: `momentum` (0.9), `nesterov` (false). `adam`, `adamw`: `betas`
    ([0.9, 0.999]), `eps` (1e-8). `rmsprop`: `alpha` (0.99), its smoothing constant, `eps` (1e-8), `momentum` (0.9)."""

    @model_validator(mode="after")
    def _across(self) -> OptimConfig:
        if self.name == "sgd" and self.args.get("nesterov") is True and self.args.get("momentum", 0.9) == 0:
            raise ValueError("args.nesterov: true needs args.momentum greater than 0, for example 0.9")
        return self


class ScheduleConfig(Section):
    """The learning rate over time, as a factor of `optim.lr`."""

    name: Annotated[str, Field(min_length=1)] = "constant"
    """Its shape after the warm-up: `constant`, `step`, `multistep`, `exponential`, `cosine`, `cosine_restarts`,
    `plateau`, an entry point, or `package.module:attribute` (called with `steps` and `args`, returns a function from a
    step to a factor)."""
    warmup: Duration = Duration(0, "st")
    """Linear from 0 to `optim.lr` over this time."""
    args: dict[str, Any] = {}
    """Further arguments of the schedule. `step`: `every` (30ep), the time between two multiplications by `gamma` (0.1).
    `multistep`: `milestones`, when to multiply by `gamma` (0.1). `exponential`: `gamma` (0.1), the factor per epoch.
    `cosine`: `min_factor` (0), the lowest factor. `cosine_restarts`: `every` (30ep), the first period, `period_factor`
    (1), by which each is longer than the one before, `min_factor` (0). `plateau`: `patience` (3), evaluations without
    improvement before the rate is multiplied by `gamma` (0.1), `min_factor` (0)."""
