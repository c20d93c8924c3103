"""From the name in a config to a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from raycls.config.names.builtin import TASKS
from raycls.config.sections.task import TaskConfig
from raycls.data.source import Split
from raycls.errors import ConfigError
from raycls.plugins import build as make
from raycls.plugins import builder
from raycls.tasks.base import Key, Setting, Task

__all__ = ["TAKEN", "Arrays", "build", "check", "check_taken"]


def check(config: TaskConfig) -> None:
    """Find the task and bind its arguments, without making it. ConfigError where that fails."""
    builder("task", config.name, config.args, TASKS, given=("setting",), at=("task.name", "task.args"))


def build(config: TaskConfig, setting: Setting) -> Task:
    """The task that `config` names, made for `setting`. ConfigError where it cannot be made."""
    task = make("task", config.name, config.args, TASKS, given={"setting": setting}, where="task", returns=Task)
    _check_names(config.name, task)
    return task


class Arrays:
    """`Task.arrays` for other processes: it travels as what the task is made from, and is made anew there."""

    def __init__(self, config: TaskConfig, setting: Setting) -> None:
        self._recipe = config, setting

    @cached_property
    def task(self) -> Task:
        """The task, without a device."""
        return build(*self._recipe)

    def __call__(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        return self.task.arrays(split, index, key, train=train)

    def __reduce__(self) -> tuple[object, ...]:
        return Arrays, self._recipe


TAKEN = {"kind", "attempt", "step", "epoch", "time", "split", "best", "elapsed", "seconds"} | {
    *("lr", "grad_norm", "images_per_second", "data_wait", "loss_scale")
}
"""What a line of the history, or what a search is told of it, has besides the numbers of a task."""


def _check_names(name: str, task: Task) -> None:
    if (
        not task.minimised
        or isinstance(task.minimised, str)
        or isinstance(task.measured, str)
        or len(set(task.sums)) < len(task.sums)
        or ("loss" in task.sums and task.minimised != ("loss",))
    ):
        raise ConfigError(
            f"the sums of the task {name} cannot be told apart",
            where="task.name",
            found=f"minimised {list(task.minimised)}, measured {list(task.measured)}",
            valid="unique names, one or more of them minimised; `loss` is the name of the only one that is minimised",
        )
    check_taken(name, (*task.sums, *task.metrics))
    metrics: object = task.metrics
    if not isinstance(metrics, Mapping) or not metrics:
        raise ConfigError(f"the task {name} has no metrics", where="task.name", valid=_METRICS)
    for each, metric in task.metrics.items():
        if getattr(metric, "mode", None) not in ("max", "min"):
            raise ConfigError(
                f"the metric {each} of the task {name} does not tell which way is better",
                where="task.name",
                found=repr(metric),
                valid=_METRICS,
            )


_METRICS = 'metrics = {name: Metric("max" or "min", low, high)}'


def check_taken(name: str, names: Iterable[str]) -> None:
    """ConfigError where one of the `names` is that of something else in a line of the history."""
    taken = sorted(TAKEN & set(names))
    if taken:
        raise ConfigError(
            f"the task {name} names its numbers like others in the history",
            where="task.name",
            found=", ".join(taken),
            fix="give them other names",
        )
