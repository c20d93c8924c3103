"""Whether a network can be trained on a micro-batch of one image: batch norm may need two values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from raycls.config.sections.run import Run
from raycls.data.order import Order
from raycls.data.source import Dataset
from raycls.errors import DataError
from raycls.models import zoo
from raycls.models.finetune import Stages
from raycls.run.ledgers import bad_images
from raycls.session.data.unfit import first_sample
from raycls.tasks.base import Task
from raycls.train.plan import Plan

__all__ = ["Alone", "not_alone", "refuse_alone"]

Alone = Callable[[int], str | None]
"""Why a single image of an epoch cannot be trained; None where it can."""


def not_alone(
    run: Run, dataset: Dataset, plan: Plan, task: Task, model: torch.nn.Module, ready: Stages, epoch: int
) -> str | None:
    """Why a single image of `epoch` cannot be trained; None where it can."""
    device = next(model.parameters()).device
    example = tuple(part.to(device) for part in task.example(first_sample(run, dataset, plan, epoch)))
    try:
        zoo.forward_alone(model, example, partial(ready, plan.total_steps - 1))
    except ValueError as error:  # batch normalisation over one value
        return str(error)
    return None


def refuse_alone(left: Order, step: int, alone: Alone) -> None:
    """DataError where the bad images of `step`, the holes of `left`, leave a micro-batch one image, and its statistics
    need two."""
    whole = replace(left, holes=())
    micros = range(whole.micro_batches)
    single = [micro for micro in micros if len(left.bounds(step, micro)) == 1 < len(whole.bounds(step, micro))]
    if single and (why := alone(whole.epoch(step))) is not None:
        divided = f" (of {whole.micro_batches}, since memory ran out)" if whole.together > 1 else ""
        raise DataError(
            "bad images leave a micro-batch a single image, on which this network cannot be trained",
            where="data.batch_size, train.micro_batches",
            found=f"micro-batch {single[0]}{divided} of step {step + 1}: {why}",
            fix=f"replace the files that {bad_images.NAME} lists and rerun the command to resume, or start anew "
            "with a larger data.batch_size or fewer train.micro_batches",
        )
