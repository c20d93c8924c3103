"""From the name in a config to a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from raycls.config.names.builtin import TASKS
from raycls.config.sections.task import TaskConfig
from raycls.data.source import Split
from raycls.errors import ConfigError, RayclsError, kind_and_line
from raycls.plugins import bind, resolve
from raycls.tasks.base import Key, Setting, Task

__all__ = ["Arrays", "build", "check"]


def check(config: TaskConfig) -> None:
    """Find the task and bind its arguments, without making it. ConfigError where that fails."""
    _found(config)


def build(config: TaskConfig, setting: Setting) -> Task:
    """The task that `config` names, made for `setting`. ConfigError where it cannot be made."""
    made = _found(config)
    try:
        task = made(setting=setting, **config.args)
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the task {config.name} cannot be made",
            where="task.args" if config.args else "task.name",
            found=kind_and_line(error),
        ) from error
    if not isinstance(task, Task):
        raise ConfigError(
            f"{config.name} is no task",
            where="task.name",
            found=type(task).__name__,
            valid="a subclass of raycls.tasks.base.Task",
        )
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


def _found(config: TaskConfig) -> Callable[..., object]:
    try:
        made = resolve("task", config.name, TASKS)
    except ConfigError as error:
        error.where = error.where or "task.name"
        raise
    bind(made, config.args, given=("setting",), where="task.args")
    return made


def _check_names(name: str, task: Task) -> None:
    if (
        not task.minimised
        or len(set(task.sums)) < len(task.sums)
        or ("loss" in task.sums and task.minimised != ("loss",))
    ):
        raise ConfigError(
            f"the sums of the task {name} cannot be told apart",
            where="task.name",
            found=f"minimised {list(task.minimised)}, measured {list(task.measured)}",
            valid="unique names, one or more of them minimised; `loss` is the name of the only one that is minimised",
        )
    if not task.metrics:
        raise ConfigError(f"the task {name} has no metrics", where="task.name", valid="{name: Metric(mode, low, high)}")
