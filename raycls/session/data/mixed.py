"""What a run will see of its batches: the images and labels of one micro-batch, as its training step makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from raycls.config.sections.run import Run
from raycls.data.images.planes import for_people
from raycls.data.slices import TRAIN, Position, micro_rows
from raycls.data.source import Dataset
from raycls.errors import ConfigError, DataError
from raycls.randomness import kept
from raycls.session.data.checked_task import checked_task
from raycls.session.data.seen import told
from raycls.session.prepare import plan_of, reduction_of
from raycls.session.setup import device_of, make_maker, make_task, refuse_missing_gpu
from raycls.train.loop import micro_batch
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic

__all__ = ["Mixed", "mixed"]


@dataclass(frozen=True)
class Mixed:
    """One micro-batch of training: sample `ids`, and what the model is given of them."""

    step: int
    micro: int
    operations: tuple[str, ...]
    """Those of `augment.batch`, as the config has them."""
    ids: tuple[int, ...]
    before: np.ndarray
    """The images before these operations, `[B, H, W, 3] uint8`."""
    after: np.ndarray
    """The images as the model gets them, with the normalisation undone, `[B, H, W, 3] uint8`."""
    shares: np.ndarray
    """How much of each class is in each image, `[B, C]`."""


def mixed(run: Run, dataset: Dataset, *, epoch: int, number: int) -> Mixed | None:
    """The micro-batch `number` of `epoch`, both from 0; None where no operation on the batch acts in this epoch.

    `raycls.train.loop.micro_batch` makes it, on the device that the run would have. ConfigError where there is no such
    micro-batch, or where the task shows nothing of its batches; DataError where an image cannot be read.
    """
    plan = plan_of(run, dataset)
    if not run.augment.batch:
        return None
    refuse_missing_gpu(run)
    device = torch.device(device_of(run, torch.cuda.device_count()))
    checked_task(run, dataset.classes, plan, lambda text: None)
    task = make_task(run, dataset.classes, device, plan)
    if not task.setting.augments(epoch):
        return None
    step, (micro, start, stop) = _place(plan, epoch, number)
    made = make_maker(run, plan, dataset, 1, run.evaluate.split)(Position(TRAIN, epoch, step, 0, 0))
    if made.error is not None:
        raise made.error
    if made.bad:
        holes = tuple(bad.place for bad in made.bad)
        _, start, stop = micro_rows(plan.order.without(holes), step, 0, 1)[micro]
        if start == stop:
            raise DataError("all images of this micro-batch are bad images", where="--micro-batch", found=str(number))
    strict = reduction_of(run, device.type) == "exact"
    with kept(), arithmetic(threads=run.scale.threads, strict=strict):
        shown = task.shown(micro_batch(task, made, (micro, start, stop), plan.seed, device))
    before = made.arrays.get("image")
    if shown is None or before is None:
        raise ConfigError(
            f"the batches of the task {run.task.name} cannot be drawn",
            where="task.name",
            found="augment.batch, and no images and shares of classes from its method shown",
            fix="set augment.batch to [] for a sheet without them, or give the task this method",
        )
    ids = tuple(made.ids[start:stop].tolist())
    operations = tuple(told(each) for each in run.augment.batch)
    pictures = np.stack([for_people(image) for image in before[start:stop]])
    return Mixed(step, micro, operations, ids, pictures, *shown)


def _place(plan: Plan, epoch: int, number: int) -> tuple[int, tuple[int, int, int]]:
    """The step of a micro-batch of an epoch, and its rows; ConfigError where there are none."""
    order, first = plan.order, epoch * plan.steps_per_epoch
    last = min(first + plan.steps_per_epoch, plan.total_steps) - 1
    step, micro = first + number // order.micro_batches, number % order.micro_batches
    _, start, stop = part = micro_rows(order, step, 0, 1)[micro] if step <= last else (0, 0, 0)
    if start == stop:
        raise ConfigError(
            f"epoch {epoch} has no such micro-batch, or no image in it",
            where="--micro-batch",
            found=str(number),
            valid=f"0 to {(last + 1 - first) * order.micro_batches - 1}",
        )
    return step, part
