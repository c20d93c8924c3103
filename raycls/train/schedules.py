"""Schedules: the learning rate over time, each a function of the length of the run and its own arguments.

One more is one more function. It may stand in a file under the working directory, and `schedule.name: module:function`
names it. It takes `steps` (`Steps`: the length of the run), further arguments by keyword, which `schedule.args` sets,
and returns a function: from the number of steps since the warm-up, counted from 0, to the factor of `optim.lr`. That
must be pure arithmetic, the same on every rank and after a resume. An argument annotated with `Duration` is written
`30ep`, `500st` or `10%`, and `steps.count` counts it. A schedule that waits for evaluations returns a `Plateau`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field

from raycls.config.names.builtin import SCHEDULES
from raycls.config.names.metrics import Mode
from raycls.config.sections.duration import Duration
from raycls.config.sections.optim import ScheduleConfig
from raycls.config.sections.types import Count, Fraction, UpToOne
from raycls.errors import ConfigError, kind_and_line
from raycls.plugins import build

__all__ = ["Factor", "Plateau", "Schedule", "Steps", "build_schedule", "half_cosine", "improves", "warmup_steps"]

Factor = Callable[[int], float]
"""From the number of steps since the warm-up to a factor of `optim.lr`."""


@dataclass(frozen=True)
class Steps:
    """The length of a run in optimizer steps. `total` includes the `warmup`."""

    per_epoch: int
    total: int
    warmup: int = 0

    def count(self, duration: Duration, argument: str, *, least: int = 1) -> int:
        """A duration in steps; ConfigError that names the argument where it is a time, or below `least`."""
        return _count(duration, f"schedule.args.{argument}", self.per_epoch, self.total, least)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps of a run, as a factor of `optim.lr`."""

    steps: Steps
    after: Factor
    plateau: Plateau | None
    """What evaluations change, where they do."""

    def factor(self, step: int) -> float:
        """The factor for the update number `step`, counted from 0; without that of `plateau`.

        During a warm-up of W steps it is (step + 1)/W, so that no update is lost on a rate of zero.
        """
        if step < self.steps.warmup:
            return (step + 1) / self.steps.warmup
        return _factor(self.after, step - self.steps.warmup)


def build_schedule(config: ScheduleConfig, *, steps_per_epoch: int, total_steps: int) -> Schedule:
    """The schedule of a run of that length. All that follows the warm-up is measured from its end.

    Raises ConfigError where name or arguments do not fit, or a duration cannot be counted in steps or counts none.
    """
    warmup = warmup_steps(config, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    steps = Steps(steps_per_epoch, total_steps, warmup)
    made = build("schedule", config.name, config.args, SCHEDULES, given={"steps": steps}, where="schedule")
    if isinstance(made, Plateau):
        return Schedule(steps, constant(steps), made)
    after, length = cast("Factor", made), max(1, total_steps - warmup)
    for step in (*range(0, length, -(-length // 1_000)), length - 1):
        _factor(after, step)
    return Schedule(steps, after, None)


def warmup_steps(config: ScheduleConfig, *, steps_per_epoch: int, total_steps: int) -> int:
    """The steps of the warm-up. Raises ConfigError where it is a time."""
    return _count(config.warmup, "schedule.warmup", steps_per_epoch, total_steps, 0)


def constant(steps: Steps) -> Factor:
    """The same rate all the time."""
    return lambda step: 1.0


def step(steps: Steps, *, every: Duration = Duration(30, "ep"), gamma: UpToOne = 0.1) -> Factor:
    """Multiplied by `gamma` after each `every`."""
    period = steps.count(every, "every")
    return lambda step: gamma ** (step // period)


def multistep(steps: Steps, *, milestones: tuple[Duration, ...] = (), gamma: UpToOne = 0.1) -> Factor:
    """Multiplied by `gamma` at each of the `milestones`."""
    counted = [steps.count(item, f"milestones[{index}]", least=0) for index, item in enumerate(milestones)]
    return lambda step: gamma ** sum(milestone <= step for milestone in counted)


def exponential(steps: Steps, *, gamma: UpToOne = 0.1) -> Factor:
    """Multiplied by `gamma` over each epoch, a little at each step."""
    return lambda step: gamma ** (step / steps.per_epoch)


def cosine(steps: Steps, *, min_factor: Fraction = 0.0) -> Factor:
    """Half a cosine down to `min_factor`, which it would reach one step after the last.

    Loshchilov and Hutter 2017 (SGDR), equation 5.
    """
    length = max(1, steps.total - steps.warmup)
    return lambda step: half_cosine(step / length, min_factor)


def cosine_restarts(
    steps: Steps,
    *,
    every: Duration = Duration(30, "ep"),
    period_factor: Annotated[float, Field(ge=1)] = 1.0,
    min_factor: Fraction = 0.0,
) -> Factor:
    """Half cosines from 1 to `min_factor`, the first of length `every`, each `period_factor` times the one before.

    Loshchilov and Hutter 2017 (SGDR), equation 5.
    """
    period = steps.count(every, "every")
    return lambda step: half_cosine(_within_period(step, period, period_factor), min_factor)


def plateau(steps: Steps, *, gamma: UpToOne = 0.1, patience: Count = 3, min_factor: Fraction = 0.0) -> Plateau:
    """Multiplied by `gamma` when evaluations improve no more."""
    return Plateau(gamma, patience, min_factor)


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


def improves(value: float, best: float | None, mode: Mode, min_delta: float = 0.0) -> bool:
    """Whether `value` is better than `best` by `min_delta` or more; one that is not finite is not."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    change = best - value if mode == "min" else value - best
    return change > 0 and change >= min_delta


def _factor(after: Factor, step: int) -> float:
    """That of a plug-in is checked: a rate that is NaN or negative would spoil the weights without a word."""
    try:
        value: object = after(step)
        found = repr(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a plug-in raises)
        value, found = None, kind_and_line(error)
    if isinstance(value, (int, float)) and 0 <= value < math.inf:
        return value
    raise ConfigError(
        "a schedule gives no factor of optim.lr",
        where="schedule.name",
        found=f"{found} at step {step} after the warm-up",
        valid="a function from a step to a number, 0 or more",
    )


def half_cosine(part: float, lowest: float) -> float:
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


def _count(duration: Duration, where: str, steps_per_epoch: int, total_steps: int, least: int) -> int:
    if duration.seconds is not None:
        raise ConfigError(
            "the schedule is counted in steps, not in time",
            where=where,
            found=str(duration),
            valid="epochs (5ep), steps (500st) or per cent of the run (10%)",
        )
    steps = duration.steps(steps_per_epoch, total_steps)
    if steps < least:
        raise ConfigError(
            "the duration is shorter than half a step",
            where=where,
            found=f"{duration} ({steps_per_epoch} steps per epoch, {total_steps} in all)",
            valid=f"{least} step or more",
        )
    return steps
