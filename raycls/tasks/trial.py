"""A task of the user, tried on a few samples before a run starts: what is wrong with it is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raycls.errors import ConfigError, RayclsError, kind_and_line
from raycls.models.surgery import modes_kept
from raycls.tasks.base import Task
from raycls.tasks.build import check_taken
from raycls.tasks.metrics import lacking

__all__ = ["example_of", "try_task"]


def example_of(name: str, task: Task, sample: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """`Task.example`; ConfigError where it fails."""
    return _called(name, "example", lambda: task.example(sample))


def try_task(name: str, task: Task, model: nn.Module, train: Mapping[str, Any], evaluated: Mapping[str, Any]) -> None:
    """Call the methods of `task` that follow `arrays` on two samples each; ConfigError names the first that fails.

    `train` and `evaluated` are a sample as `arrays` makes it, and empty where there is none. Weights and training flags
    stay as they are; the generators are the caller's to keep.
    """
    with modes_kept(model):
        if train:
            model.train()
            _try_loss(name, task, model, _twice(train))
        if evaluated:
            model.eval()
            _try_counts(name, task, model, _twice(evaluated))


def _try_loss(name: str, task: Task, model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    batch = _called(name, "batch", lambda: task.batch(arrays, train=True))
    sums = _called(name, "loss", lambda: task.loss(model, batch))
    _check_tensors(name, "loss", sums)
    trained = [sums[each] for each in task.minimised if each in sums]
    if sums.keys() != set(task.sums) or any(value.numel() != 1 for value in sums.values()):
        raise _wrong(name, "loss", _shapes(sums), f"scalars: {', '.join(task.sums)}")
    if not any(value.requires_grad for value in trained):
        raise _wrong(name, "loss", "no gradient", f"differentiable: {', '.join(task.minimised)}")


def _try_counts(name: str, task: Task, model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    batch = _called(name, "batch", lambda: task.batch(arrays, train=False))
    with torch.no_grad():
        counts = _called(name, "counts", lambda: task.counts(model, batch))
    _check_tensors(name, "counts", counts)
    sums = {
        key: value.to("cpu", torch.float64 if value.is_floating_point() else torch.int64).numpy()
        for key, value in counts.items()
    }
    try:
        summary: Any = task.summary(sums)
    except Exception:  # noqa: BLE001 - two samples may be too few for it
        return
    if not isinstance(summary, Mapping):
        raise _wrong(name, "summary", type(summary).__name__, "a dict of plain JSON")
    scalars = _called(name, "scalars", lambda: task.scalars(summary))
    check_taken(name, scalars)
    if wrong := lacking(task, scalars):
        found = ", ".join(f"{each}: {type(summary.get(each)).__name__}" for each in wrong)
        raise _wrong(name, "summary", found, f"a Python int or float for each of {', '.join(task.metrics)}")


def _twice(sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {key: np.stack([array, array]) for key, array in sample.items()}


def _called(name: str, method: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in raises
        raise ConfigError(
            f"the method {method} of the task {name} fails",
            where="task.name",
            found=kind_and_line(error),
            fix="correct it, or the arguments (task.args)",
        ) from error


def _check_tensors(name: str, method: str, found: Any) -> None:
    if not isinstance(found, Mapping) or not all(
        isinstance(value, Tensor) and not value.is_complex() for value in found.values()
    ):
        raise _wrong(name, method, _shapes(found), "a dict of tensors, of integers or floats")


def _shapes(found: Any) -> str:
    if not isinstance(found, Mapping):
        return type(found).__name__
    kinds = {key: [*value.shape] if isinstance(value, Tensor) else type(value).__name__ for key, value in found.items()}
    return ", ".join(f"{key} {kind}" for key, kind in kinds.items()) or "nothing"


def _wrong(name: str, method: str, found: str, valid: str) -> ConfigError:
    what = f"the method {method} of the task {name} does not return what it must"
    return ConfigError(what, where="task.name", found=found, valid=valid)
