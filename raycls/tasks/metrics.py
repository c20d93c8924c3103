"""Whether the metric that decides about best, early stopping, plateau and trials can decide, and which way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.config.names.metrics import Mode
from raycls.config.sections.search import SearchConfig, objective
from raycls.config.sections.train import EvaluateConfig
from raycls.config.write import override
from raycls.errors import ConfigError
from raycls.tasks.base import Task

__all__ = ["check_metrics", "lacking", "mode_of"]


def mode_of(task: Task, metric: str) -> Mode:
    """Whether more or less of `evaluate.metric` is better; of no meaning for what is no metric of the task."""
    return task.metrics.get(metric, next(iter(task.metrics.values()))).mode


def lacking(task: Task, scalars: Mapping[str, Any]) -> list[str]:
    """The metrics of the task that are no number of Python among the `scalars` of a summary."""
    return [name for name in task.metrics if type(scalars.get(name)) not in (int, float)]


def check_metrics(task: Task, evaluate: EvaluateConfig, search: SearchConfig) -> None:
    """ConfigError where what decides is no metric of the task, or cannot vary on its data."""
    if evaluate.every == "off":
        return
    try:
        objective(search, evaluate.metric, task.metrics)
    except ValueError as error:
        where, _, what = str(error).partition(": ")
        raise ConfigError(what, where=where) from error
    for option, metric in (("evaluate.metric", evaluate.metric), ("search.metric", search.metric)):
        if metric in task.metrics and (why := task.constant(metric)):
            others = [name for name in task.metrics if not task.constant(name)]
            raise ConfigError(
                "this metric is the same on this data whatever is predicted, and can decide nothing",
                where=option,
                found=why,
                valid=", ".join(others),
                fix=f"set {override(option, others[0])}",
            )
