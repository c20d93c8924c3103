"""Whether a network can be trained on a micro-batch of one image: batch norm may need two values."""

from __future__ import annotations

from functools import partial

import torch

from raycls.config.sections.run import Run
from raycls.data.source import Dataset
from raycls.models import zoo
from raycls.models.finetune import Stages
from raycls.session.data.unfit import first_sample
from raycls.tasks.base import Task
from raycls.train.plan import Plan

__all__ = ["not_alone"]


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
