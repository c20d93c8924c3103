"""The optimizer, the learning rate over time, and when to give up."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from raycls.config.sections.duration import Duration
from raycls.config.sections.optim import OptimConfig, ScheduleConfig
from raycls.config.sections.train import EarlyStopConfig
from raycls.errors import ConfigError, ModelError
from raycls.models.surgery import parameter_groups

__all__ = [
    "EarlyStop",
    "Mode",
    "Plateau",
    "build_optimizer",
    "check_schedule",
    "lr_factor",
    "mode_of",
    "schedule_steps",
]

Mode = Literal["min", "max"]


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """torch's optimizer over the trainable parameters of `model`, at the full `optim.lr`.

    Raises ModelError where the model has none.
    """
    groups = parameter_groups(model, config.weight_decay, config.weight_decay_on)
    if not groups:
        raise ModelError("the model has no parameters that can be trained", where="model.name")
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, foreach=True)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=config.lr, alpha=config.alpha, eps=config.eps, momentum=config.momentum, foreach=True
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, foreach=True)


def check_schedule(config: ScheduleConfig, *, steps_per_epoch: int, total_steps: int) -> None:
    """ConfigError where a duration of the schedule cannot be counted in steps, or counts none."""
    schedule_steps(config.warmup, "warmup", steps_per_epoch, total_steps, least=0)
    if config.name in ("step", "cosine_restarts"):
        schedule_steps(config.every, "every", steps_per_epoch, total_steps, least=1)
    if config.name == "multistep":
        for index, milestone in enumerate(config.milestones):
            schedule_steps(milestone, f"milestones[{index}]", steps_per_epoch, total_steps, least=0)


def lr_factor(config: ScheduleConfig, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
    """The factor of `optim.lr` for the update number `step`, counted from 0, of `total_steps` updates.

    During a warm-up of W steps it is (step + 1)/W, so that no update is lost on a rate of zero. All that
    follows is measured from the end of the warm-up: periods, milestones, and the length of the cosine,
    which would reach its lowest point one step after the last. `plateau` is 1 here, see `Plateau`.

    Cosine and restarts: Loshchilov and Hutter 2017 (SGDR), equation 5. Pure arithmetic: the same on every
    rank, and after a resume. Raises ConfigError as `check_schedule` does.
    """
    warmup = schedule_steps(config.warmup, "warmup", steps_per_epoch, total_steps, least=0)
    if step < warmup:
        return (step + 1) / warmup
    after = step - warmup
    if config.name == "step":
        return config.gamma ** (after // schedule_steps(config.every, "every", steps_per_epoch, total_steps, least=1))
    if config.name == "multistep":
        passed = [
            schedule_steps(milestone, f"milestones[{index}]", steps_per_epoch, total_steps, least=0) <= after
            for index, milestone in enumerate(config.milestones)
        ]
        return config.gamma ** sum(passed)
    if config.name == "exponential":
        return config.gamma ** (after / steps_per_epoch)
    if config.name == "cosine":
        return _cosine(after / max(1, total_steps - warmup), config.min_factor)
    if config.name == "cosine_restarts":
        period = schedule_steps(config.every, "every", steps_per_epoch, total_steps, least=1)
        return _cosine(_within_period(after, period, config.period_factor), config.min_factor)
    return 1.0


@dataclass
class Plateau:
    """The factor of the schedule `plateau`: multiplied by `gamma` at the `patience`-th evaluation in a row
    without improvement, never below `min_factor`. Its state is plain JSON."""

    gamma: float
    patience: int
    min_factor: float = 0.0
    factor: float = 1.0
    best: float | None = None
    bad: int = 0

    @classmethod
    def of(cls, config: ScheduleConfig) -> Plateau:
        """As the config says, at the start of a run."""
        return cls(config.gamma, config.patience, config.min_factor)

    def update(self, value: float, mode: Mode) -> float:
        """Take the metric of one evaluation; the factor from now on. A value that is not finite is no improvement."""
        if improves(value, self.best, mode, 0.0):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.bad >= self.patience:
            self.factor, self.bad = max(self.min_factor, self.factor * self.gamma), 0
        return self.factor

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.bad = state["factor"], state["best"], state["bad"]


@dataclass
class EarlyStop:
    """Ends a run at the `patience`-th evaluation in a row without improvement. Its state is plain JSON."""

    patience: int | Literal["off"]
    min_delta: float
    mode: Mode
    best: float | None = None
    bad: int = 0

    @classmethod
    def of(cls, config: EarlyStopConfig, metric: str) -> EarlyStop:
        """As the config says, at the start of a run whose `evaluate.metric` is `metric`."""
        return cls(config.patience, config.min_delta, mode_of(metric))

    def update(self, value: float) -> bool:
        """Take the metric of one evaluation; True when the run should end.

        An improvement changes the best value by `min_delta` or more. A value that is not finite is none.
        """
        if improves(value, self.best, self.mode, self.min_delta):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return self.patience != "off" and self.bad >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key in ("best", "bad")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.bad = state["best"], state["bad"]


def mode_of(metric: str) -> Mode:
    """Whether a smaller (`loss`) or a greater value of the metric is better."""
    return "min" if metric == "loss" else "max"


def improves(value: float, best: float | None, mode: Mode, min_delta: float = 0.0) -> bool:
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    change = best - value if mode == "min" else value - best
    return change > 0 and change >= min_delta


def _cosine(part: float, lowest: float) -> float:
    """From 1 at `part` 0 to `lowest` at `part` 1 and beyond."""
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(1.0, part))) / 2


def _within_period(after: int, period: int, growth: float) -> float:
    """How much of its period has passed at the step `after`, in 0..1, where each period is `growth` times longer."""
    if growth == 1:
        return after % period / period
    start, length = 0.0, float(period)
    while after >= start + length:
        start, length = start + length, length * growth
    return (after - start) / length


def schedule_steps(duration: Duration, field: str, steps_per_epoch: int, total_steps: int, *, least: int) -> int:
    """A duration of the schedule in steps; ConfigError where it is a time, or below `least`."""
    if duration.seconds is not None:
        raise ConfigError(
            "the schedule is counted in steps, not in time",
            where=f"schedule.{field}",
            found=str(duration),
            valid="epochs (5ep), steps (500st) or per cent of the run (10%)",
        )
    steps = duration.steps(steps_per_epoch, total_steps)
    if steps < least:
        raise ConfigError(
            "the duration is shorter than half a step",
            where=f"schedule.{field}",
            found=f"{duration} ({steps_per_epoch} steps per epoch, {total_steps} in all)",
            valid=f"{least} step or more",
        )
    return steps
