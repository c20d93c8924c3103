"""Options of the optimizer and of the learning rate over time."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, NotNegative, Positive, Section

__all__ = ["OptimConfig", "ScheduleConfig"]


class OptimConfig(Section):
    """The optimizer."""

    name: Annotated[str, Field(min_length=1)] = "sgd"
    """`sgd`, `adam`, `adamw`, `nadam`, `adafactor`, `rmsprop`, `lion`, `lamb`, `lars`, `muon`, an entry point, or
    `package.module:attribute` (called with the parameter `groups`, `lr` and `args`, returns a
    `torch.optim.Optimizer`)."""
    lr: Positive = 0.1
    """Highest learning rate; it is never scaled by the number of workers."""
    lr_rule: Literal["none", "linear", "sqrt"] = "none"
    """Whether `optim.lr` is for `optim.lr_base_batch` samples and grows with `data.batch_size`: in proportion
    (`linear`), or with its square root (`sqrt`)."""
    lr_base_batch: Count = 256
    """For lr_rule: the batch size that `optim.lr` is for."""
    weight_decay: NotNegative = 0.0
    """L2 for sgd, adam, rmsprop and lars; decoupled for adamw, nadam, adafactor, lion and muon; for lamb a part of the
    update that is scaled."""
    weight_decay_on: Literal["all", "weights"] = "all"
    """`weights` leaves biases and normalisation parameters (those with one dimension) undecayed."""
    clip_norm: Positive | Literal["off"] = "off"
    """Largest L2 norm of the whole gradient; a longer one is scaled down."""
    clip_value: Positive | Literal["off"] = "off"
    """Largest absolute value of a gradient's elements; larger ones are set to it."""
    agc: Positive | Literal["off"] = "off"
    """Adaptive clipping: the largest norm of the gradient of an output of a layer, as a share of the norm of its
    weights, for example 0.01. The last layer is not clipped."""
    sam: Positive | Literal["off"] = "off"
    """Radius of sharpness-aware minimisation, with any optimizer, for example 0.05: the gradient is taken where the
    loss of the batch is highest within this distance. A step takes twice as long."""
    ema: Annotated[float, Field(gt=0, lt=1)] | Literal["off"] = "off"
    """Decay per step of an exponential moving average of the weights, which is then evaluated and kept."""
    ema_warmup: Literal["ramp", "off"] = "ramp"
    """For ema: how the average begins. `ramp`: its decay after t updates is at most (1 + t) / (10 + t), so that it soon
    forgets the first weights. `off`: `optim.ema` from the first update on."""
    args: dict[str, Any] = {}
    """Further arguments of the optimizer. `sgd`: `momentum` (0.9), `nesterov` (false). `adam`, `adamw`: `betas`
    ([0.9, 0.999]), `eps` (1e-8). `nadam`: these, `momentum_decay` (0.004) and `decay` (decoupled, or l2). `adafactor`:
    `beta2_decay` (-0.8), `clip_threshold` (1), `min_scale` (1e-3). `rmsprop`: `alpha` (0.99), its smoothing constant,
    `eps` (1e-8), `momentum` (0.9). `lion`: `betas` ([0.9, 0.99]). `lamb`: `betas` ([0.9, 0.999]), `eps` (1e-6), `adapt`
    (weights, or all). `lars`: `momentum` (0.9), `trust` (0.001), `adapt` (weights, or all). `muon`: `momentum` (0.95),
    `nesterov` (true), `iterations` (5), `scale` (match_rms_adamw, or original), `convolutions` (muon, or adamw), and
    for all else `betas` ([0.9, 0.999]), `eps` (1e-8)."""

    @model_validator(mode="after")
    def _across(self) -> OptimConfig:
        if self.name == "sgd" and self.args.get("nesterov") is True and self.args.get("momentum", 0.9) == 0:
            raise ValueError("args.nesterov: true needs args.momentum greater than 0, for example 0.9")
        clipped = [name for name in ("clip_norm", "clip_value", "agc") if getattr(self, name) != "off"]
        if len(clipped) > 1:
            raise ValueError(f"{' and '.join(clipped)} both clip the gradient: leave one of them off")
        return self

    def scaled(self, batch_size: int) -> OptimConfig:
        """As it trains batches of `batch_size` samples: with the `lr` that `lr_rule` makes of it."""
        ratio = batch_size / self.lr_base_batch
        factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.lr_rule]
        return self if self.lr_rule == "none" else self.model_copy(update={"lr": self.lr * factor})


class ScheduleConfig(Section):
    """The learning rate over time, as a factor of `optim.lr`."""

    name: Annotated[str, Field(min_length=1)] = "constant"
    """Its shape after the warm-up: `constant`, `step`, `multistep`, `exponential`, `polynomial`, `cosine`,
    `cosine_restarts`, `one_cycle`, `wsd`, `plateau`, `range_test`, an entry point, or `package.module:attribute`
    (called with `steps` and `args`, returns a function from a step to a factor)."""
    warmup: Duration = Duration(0, "st")
    """Linear from 0 to `optim.lr` over this time."""
    args: dict[str, Any] = {}
    """Further arguments of the schedule. `step`: `every` (30ep), the time between two multiplications by `gamma` (0.1).
    `multistep`: `milestones`, when to multiply by `gamma` (0.1). `exponential`: `gamma` (0.1), the factor per epoch.
    `polynomial`: `power` (1), `min_factor` (0), the lowest factor. `cosine`: `min_factor` (0). `cosine_restarts`:
    `every` (30ep), the first period, `period_factor` (1), by which each is longer than the one before, `min_factor`
    (0). `one_cycle`: `peak` (30%), how long the rate rises from `start_factor` (0.04), `min_factor` (4e-6), `shape`
    (cosine, or linear). `wsd`: `decay` (20%), the last part of the run, in which it falls to `min_factor` (0), `shape`
    (linear, cosine or sqrt). `plateau`: `patience` (3), evaluations without improvement before the rate is multiplied
    by `gamma` (0.1), `min_factor` (0). `range_test`: `min_factor` (1e-6), from which the rate rises to `optim.lr` in
    the last step."""
