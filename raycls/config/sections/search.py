"""Options of `raycls search`: what is varied, how values are chosen, and which trials are stopped early."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raycls.config.names.metrics import Metric, Mode
from raycls.config.names.suggest import suggest
from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, Finite, Fraction, Section

__all__ = ["ConfirmConfig", "SchedulerConfig", "SearchConfig", "decisive", "objective"]


class SchedulerConfig(Section):
    """Which trials continue and which are stopped, by their evaluations while they train."""

    name: Literal["asha", "median", "pbt", "none"] = "asha"
    """`asha`: successive halving without waiting (Li et al. 2020). `median`: stop what is worse than the median
    of the others (Golovin et al. 2017). `pbt`: population based training (Jaderberg et al. 2017), where bad
    trials continue from the weights of good ones with changed values. `none`: every trial runs to its end."""
    grace: Duration = Duration(1, "ep")
    """For asha and median: no trial is stopped before; for asha the first rung."""
    reduction: Annotated[int, Field(ge=2)] = 4
    """For asha: one of this many continues at each rung, and the rungs are this factor apart."""
    brackets: Count = 1
    """For asha: how many rows of rungs there are, each beginning one rung later than the one before."""
    interval: Duration = Duration(1, "ep")
    """For pbt: between two comparisons of a trial with the others."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """For pbt: this part of the population, the worst, copies from the same part, the best."""
    resample: Fraction = 0.25
    """For pbt: the probability that a copied value is drawn anew instead of changed a little."""

    @model_validator(mode="after")
    def _units(self) -> SchedulerConfig:
        if self.grace.value <= 0:
            raise ValueError(f"grace must be greater than 0: {self.grace} is not")
        if self.interval.value <= 0:
            raise ValueError(f"interval must be greater than 0: {self.interval} is not")
        return self


class ConfirmConfig(Section):
    """Whether the best trial is really better than the second."""

    seeds: Annotated[int, Field(ge=2)] | Literal["off"] = "off"
    """Train the winner and the runner-up anew with this many seeds each, and score every model once on the
    test split."""


class SearchConfig(Section):
    """`raycls search`: many trials of one config with other values. `raycls train` does not look at it."""

    space: dict[str, Any] = {}
    """What is searched, by dotted path: a list of values, `choice(a, b)`, `uniform(lo, hi)`,
    `loguniform(lo, hi)`, `randint(lo, hi)`, `lograndint(lo, hi)` (both ends included), `quniform(lo, hi, q)`, or
    `{when: {path: value}, values: ...}` for what is only there where another path has that value."""
    trials: Count = 20
    """How many trials there are; for pbt, how many there are at a time. A grid ends earlier where it is smaller."""
    metric: Annotated[str, Field(min_length=1)] = "auto"
    """What trials are compared by, at their best evaluation: a metric of the task. `auto`: `evaluate.metric`."""
    mode: Literal["auto", "max", "min"] = "auto"
    """Whether more is better. `auto` follows from the metric."""
    algorithm: Literal["grid", "random", "optuna"] = "random"
    """How values are chosen: every combination in order, at random, or by Optuna's TPE (the extra `search`)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the chosen values. The trials themselves keep `run.seed`."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """Which trials are stopped early."""
    max_concurrent: Count | Literal["auto"] = "auto"
    """The most trials at a time. `auto`: as many as the cluster has room for."""
    max_parameters: Count | Literal["off"] = "off"
    """Combinations whose model has more parameters are not tried."""
    max_flops: Count | Literal["off"] = "off"
    """Combinations whose model needs more floating-point operations for the forward pass of one image are not
    tried; a multiplication and an addition are two."""
    gpus_per_trial: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Part of a GPU that a trial of one worker has. `auto`: a whole one where there are GPUs."""
    target: Finite | Literal["off"] = "off"
    """The search ends when a trial's metric reaches this value."""
    budget: Duration | Literal["off"] = "off"
    """Wall-clock time after which the search ends, counted over all its starts."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How many times a trial is started again after its process or node was lost."""
    confirm: ConfirmConfig = ConfirmConfig()
    """Training the two best anew with several seeds."""

    @model_validator(mode="after")
    def _units(self) -> SearchConfig:
        if isinstance(self.budget, Duration) and not self.budget.seconds:
            raise ValueError(f"budget is a time such as 2h: {self.budget} is not")
        return self


def objective(search: SearchConfig, evaluated: str, metrics: Mapping[str, Metric]) -> tuple[str, Mode]:
    """(metric, mode) that trials are compared by, where `evaluated` is `evaluate.metric` and `metrics` are the task's.

    ValueError, which names the option, for a metric that the task has not, and for a mode or a target that no trial
    can be judged by.
    """
    for option, name in (("evaluate.metric", evaluated), ("search.metric", search.metric)):
        if name not in metrics and (option, name) != ("search.metric", "auto"):
            near = suggest(name, list(metrics))
            meant = "" if near is None else f"; did you mean {near}?"
            raise ValueError(f"{option}: the task has no metric {name!r}, it has {', '.join(metrics)}{meant}")
    name = evaluated if search.metric == "auto" else search.metric
    metric, target = metrics[name], search.target
    if search.mode not in ("auto", metric.mode):
        raise ValueError(f"search.mode: {search.mode} looks for the worst {name}; leave it out, or {metric.mode}")
    if not isinstance(target, str) and not metric.low <= target <= metric.high:
        valid = "a share, from 0 to 1" if metric.share else f"{metric.low:g} or more"
        valid = valid if math.isinf(metric.high) or metric.share else f"from {metric.low:g} to {metric.high:g}"
        raise ValueError(f"search.target: {target:g} is never reached: {name} is {valid}")
    return name, metric.mode


def decisive(values: Mapping[str, float], metric: str) -> float:
    """The value that an evaluation is compared with others by: `metric`, or NaN where its loss is not finite.

    What a network with NaN in its logits predicts is no result, however many of these classes are right.
    """
    value = float(values.get(metric, math.nan))
    return value if math.isfinite(float(values.get("loss", 0.0))) else math.nan
