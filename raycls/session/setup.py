"""What a training and an evaluation have in common on one rank: threads, generators, the task, the decoding."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from raycls.config.sections.run import Run
from raycls.data.images import operations
from raycls.data.slices import Maker
from raycls.data.source import Dataset
from raycls.errors import RayclsError
from raycls.session.job import Job, World
from raycls.session.messages import Event
from raycls.session.reporter import Reporter
from raycls.tasks.classification import Classification, generators_put_back
from raycls.tasks.losses import build_loss
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic, precision_dtype
from raycls.train.ranks import Ranks

__all__ = ["make_maker", "make_task", "surrounded", "tell", "together"]


def surrounded(run: Run, job: Job, world: World, stack: ExitStack) -> Reporter:
    """What every computation of a rank has around it; the reporter of rank 0 says how far it is."""
    stack.enter_context(arithmetic(threads=run.scale.threads, strict=job.reduction == "exact"))
    stack.enter_context(generators_put_back())
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


def make_task(run: Run, precision: str, device: torch.device) -> Classification:
    return Classification(
        seed=run.run.seed,
        mean=run.augment.mean,
        std=run.augment.std,
        loss=build_loss(run.loss),
        amp=precision_dtype(precision),
        channels_last=run.train.memory_format == "channels_last",
        device=device,
    )


def make_maker(run: Run, plan: Plan, dataset: Dataset, world: int, split: str) -> Maker:
    size, most = run.data.image_size, run.data.max_pixels
    evaluated = dataset.splits.get(split)
    return Maker(
        order=plan.order,
        world=world,
        train=dataset.splits.get("train", evaluated),
        evaluated=evaluated,
        evaluate_batch=plan.evaluate_batch,
        train_augment=operations.build(run.augment.train, train=True, image_size=size, max_pixels=most),
        evaluate_augment=operations.build(run.augment.eval, train=False, image_size=size, max_pixels=most),
    )
