"""From the name in a config to a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np

from raycls.config.names.builtin import TASKS
from raycls.config.sections.task import TaskConfig
from raycls.data.images import operations as of_images
from raycls.data.images.operations import Augment
from raycls.data.source import Split
from raycls.data.volumes import operations as of_volumes
from raycls.data.volumes.operations import VolumeAugment
from raycls.errors import ConfigError
from raycls.plugins import build as make
from raycls.plugins import builder, resolve
from raycls.tasks.base import Key, Setting, Task
from raycls.tasks.reading import ONE, Reading

__all__ = [
    "TAKEN",
    "Arrays",
    "build",
    "check",
    "check_labels",
    "check_taken",
    "gives_masks",
    "operations_of",
    "reading_of",
    "takes_volumes",
]


def check(config: TaskConfig) -> None:
    """Find the task and bind its arguments, without making it. ConfigError where that fails."""
    builder("task", config.name, config.args, TASKS, given=("setting",), at=("task.name", "task.args"))


def build(config: TaskConfig, setting: Setting) -> Task:
    """The task that `config` names, made for `setting`. ConfigError where it cannot be made."""
    task = make("task", config.name, config.args, TASKS, given={"setting": setting}, where="task", returns=Task)
    _check_names(config.name, task)
    decoded = setting.planes.channels
    if task.channels and setting.channels not in task.channels and decoded in (1, 3):
        raise ConfigError(
            f"the task {config.name} has no images of so many channels",
            where="model.in_channels",
            found=str(setting.channels),
            valid="3 (the decoded RGB) or 1 (its grey value); others with data.channels, or a task of your own"
            if task.channels == (1, 3)
            else ", ".join(map(str, task.channels)),
        )
    return task


def reading_of(config: TaskConfig) -> Reading:
    """The `reading` of the task, without making it."""
    return getattr(resolve("task", config.name, TASKS), "reading", ONE)


def takes_volumes(config: TaskConfig) -> bool:
    """Whether the samples of the task are volumes, without making it."""
    return bool(getattr(resolve("task", config.name, TASKS), "volumes", False))


def gives_masks(config: TaskConfig) -> bool:
    """Whether the answers of the task are masks, without making it."""
    return bool(getattr(resolve("task", config.name, TASKS), "masks", False))


def operations_of(config: TaskConfig) -> Callable[..., Augment | VolumeAugment]:
    """What builds the operations of `augment` for the samples of the task."""
    return of_volumes.build if takes_volumes(config) else of_images.build


def check_labels(config: TaskConfig, split: Split) -> None:
    """ConfigError where the task needs one class for each sample and `split` has any number, or the other way round."""
    several = getattr(resolve("task", config.name, TASKS), "several", None)
    if several is None or several == (split.sets is not None):
        return
    shown = "any number of classes" if split.sets is not None else "one class"
    raise ConfigError(
        f"the task {config.name} does not fit the labels of the data",
        where="task.name",
        found=f"{shown} for each image",
        fix="set data.source.args.multilabel=true, for a manifest whose images have any number of classes"
        if several
        else "set task.name=multilabel evaluate.metric=map",
    )


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
    *("lr", "grad_norm", "images_per_second", "data_wait", "loss_scale", "compile_seconds")
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
