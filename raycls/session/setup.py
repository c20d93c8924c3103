"""What a training and an evaluation have in common on one rank: threads, generators, the task, the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from raycls import randomness
from raycls.config.sections.run import Run
from raycls.data.slices import Maker
from raycls.data.source import Dataset
from raycls.errors import RayclsError
from raycls.session.job import Job, World
from raycls.session.messages import Event
from raycls.session.reporter import Reporter
from raycls.tasks.base import Setting, Task
from raycls.tasks.build import Arrays, build
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic
from raycls.train.ranks import Ranks

__all__ = ["make_arrays", "make_maker", "make_task", "surrounded", "tell", "together"]


def surrounded(run: Run, plan: Plan, job: Job, world: World, stack: ExitStack) -> Reporter:
    """What every computation of a rank has around it; the reporter of rank 0 says how far it is."""
    stack.enter_context(arithmetic(threads=run.scale.threads, strict=plan.reduction == "exact"))
    stack.enter_context(randomness.kept())  # the loop seeds them; a process that trains itself gets its own back
    return stack.enter_context(Reporter(world.post, quiet=world.rank > 0 or bool(job.search)))


def together(ranks: Ranks, build: Callable[[], Any]) -> Any:
    """Run `build` on every rank; where one rank fails, all raise."""
    made, error = None, None
    try:
        made = build()
    except RayclsError as failed:
        error = failed
    ranks.check(error)
    return made


def tell(world: World, text: str) -> None:
    world.post(Event(text))


def make_task(run: Run, classes: Sequence[str], device: torch.device | None) -> Task:
    """The task of `run` for data with these classes; see `Setting.device`."""
    return build(run.task, _setting(run, classes, device))


def make_arrays(run: Run, classes: Sequence[str]) -> Arrays:
    """What makes the samples of the task."""
    return Arrays(run.task, _setting(run, classes, None))


def make_maker(run: Run, plan: Plan, dataset: Dataset, world: int, split: str) -> Maker:
    evaluated = dataset.splits.get(split)
    return Maker(
        order=plan.order,
        world=world,
        train=dataset.splits.get("train", evaluated),
        evaluated=evaluated,
        evaluate_batch=plan.evaluate_batch,
        arrays=make_arrays(run, dataset.classes),
    )


def _setting(run: Run, classes: Sequence[str], device: torch.device | None) -> Setting:
    return Setting(
        seed=run.run.seed,
        classes=tuple(classes),
        image_size=run.data.image_size,
        max_pixels=run.data.max_pixels,
        augment=run.augment,
        loss=run.loss,
        channels_last=run.train.memory_format == "channels_last",
        device=device,
    )
