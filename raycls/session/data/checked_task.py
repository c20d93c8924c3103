"""The task of a run that is about to start: whether its options act, and what balancing classes does on this data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from raycls.config.names.builtin import TASKS
from raycls.config.sections.run import Run
from raycls.data.orders.balanced import drawn
from raycls.errors import ConfigError
from raycls.randomness import seeded
from raycls.session.setup import make_task
from raycls.tasks.base import Task
from raycls.tasks.losses.balance import class_weights, log_priors
from raycls.tasks.losses.build import check_loss
from raycls.tasks.metrics import check_metrics
from raycls.tasks.mix.build import mixes
from raycls.train.plan import Plan

__all__ = ["checked_task"]


def checked_task(run: Run, classes: Sequence[str], plan: Plan, say: Callable[[str], None]) -> Task:
    """The task of `run`, on the CPU. ConfigError where metrics, loss, mixing or balance do not fit it or the data."""
    task = make_task(run, classes, torch.device("cpu"), plan)
    check_metrics(task, run.evaluate, run.search)
    if run.augment.batch and "augment.batch" not in task.obeys:
        raise _unheeded(run, "augment.batch", [])
    if run.augment.off_after != "off" and "augment.off_after" not in task.obeys:
        raise _unheeded(run, "augment.off_after", "off")
    if run.loss.balance not in ("none", "sampler") and "loss.balance" not in task.obeys:
        raise _unheeded(run, "loss.balance", "none")
    if run.data.channels != 3 and "data.channels" not in task.obeys:
        raise _unheeded(run, "data.channels", 3)
    if run.data.weight is not None and "data.weight" not in task.obeys:
        raise _unheeded(run, "data.weight", "null")
    if run.data.patch.size != "off" and "data.patch" not in task.obeys:
        raise _unheeded(run, "data.patch.size", "off")
    if run.windows.size != "off" and "evaluate.sliding_window" not in task.obeys:
        raise _unheeded(run, "evaluate.sliding_window.size", "off")
    if run.loss.balance != "none":
        say(_balance(run, classes, plan))
    if run.task.name in TASKS:  # a task of the user may have no use for `loss`
        with seeded(0):
            mixed = mixes(run.augment.batch, len(classes), run.data.image_size, task.setting.channels)
        if mixed and run.data.weight is not None:
            raise ConfigError(
                "a mixture of two images has no weight of its own",
                where="augment.batch, data.weight",
                found=f"data.weight: {run.data.weight}",
                fix="leave operations that mix images out of augment.batch, or data.weight",
            )
        weighted = run.data.weight is not None and not task.several
        check_loss(run.loss, task.setting.class_counts or (1,) * len(classes), mixed=mixed, weighted=weighted)
    return task


def _balance(run: Run, classes: Sequence[str], plan: Plan) -> str:
    """What `loss.balance` does to the smallest and the largest class. ConfigError where there are not two."""
    balance = run.loss.balance
    counts = np.array(plan.labels.counts(len(classes)) if plan.labels and classes else (), np.int64)
    there = np.flatnonzero(counts)
    if len(there) < 2:
        raise ConfigError(
            "there is nothing to balance: the training samples are not of several classes",
            where="loss.balance",
            found=f"{balance}, and in training {', '.join(classes[int(index)] for index in there) or 'no class'}",
            fix="set loss.balance to none",
        )
    ends = dict.fromkeys((int(there[np.argmin(counts[there])]), int(there[np.argmax(counts[there])])))
    named = [f"{classes[index]} ({counts[index]:,} training samples)" for index in ends]
    if balance == "sampler":
        times = sorted({drawn(plan.samples, len(there), index, 1) for index in range(len(there))})
        turns = [f"{plan.samples / len(there) / counts[index]:.3g}" for index in ends]
        told = [f"one of {name} {turn} times per epoch" for name, turn in zip(named, turns, strict=True)]
        return (
            f"loss.balance sampler: an epoch is {plan.samples:,} draws and not every sample once: each of {len(there)} "
            f"classes comes {' or '.join(f'{time:,}' for time in times)} times, its samples in turn; {', '.join(told)}"
        )
    if balance == "logit_adjust":
        values = run.loss.balance_tau * log_priors(counts.tolist())
        what = "a logit of {} is changed by {:+.3g} in training"
    else:
        values = class_weights(counts.tolist(), run.loss.balance_beta if balance == "effective_number" else None)
        what = "a sample of {} weighs {:.3g}"
    told = [what.format(name, float(values[index])) for name, index in zip(named, ends, strict=True)]
    return f"loss.balance {balance}: {', '.join(told)}"


def _unheeded(run: Run, option: str, off: object) -> ConfigError:
    return ConfigError(
        f"the task {run.task.name} does nothing with {option}",
        where=option,
        found=f"task.name: {run.task.name}",
        valid=f"a task whose attribute obeys names {option}, such as classification",
        fix=f"set {option} to {off}",
    )
