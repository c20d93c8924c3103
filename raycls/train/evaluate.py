"""Exact evaluation: every row is counted once, and the numbers do not depend on how many ranks counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raycls.data.slices import Slice
from raycls.tasks.classification import Classification
from raycls.tasks.metrics import summarise
from raycls.train.ranks import Ranks

__all__ = ["evaluate"]

_NO_STEP = -1
"""Stands for the step in the seeds of an evaluation, which are the same after every step."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    slices: Iterable[Slice],
    task: Classification,
    ranks: Ranks,
    *,
    batches: int,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Evaluate `model` on this rank's `slices` and add up over ranks; returns `metrics.summarise`'s dictionary.

    A batch is computed whole by one rank, so its bits do not depend on the world size. Counts are integers. Each
    batch's loss is a float64 sum that only its rank contributes; the batches are added up in their order. A model
    that draws in evaluation mode too (`F.dropout(x)` does) draws the same for a batch, whoever computes it.
    Raises Interrupted where the ranks agree to leave it, and on every rank where one could not read a sample.
    """
    size = len(classes)
    losses = torch.zeros(max(1, batches), dtype=torch.float64)
    counts = torch.zeros(size * size + 1, dtype=torch.int64)  # the confusion matrix, then top-5
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for made in slices:
            ranks.go_on(made.error)
            if not len(made.labels):
                continue
            labels = torch.from_numpy(made.labels.copy()).to(task.device)
            task.seed_forward(_NO_STEP, made.position.index)
            with task.autocast():
                logits = model(task.images(made.pixels))
            logits = logits.double()
            losses[made.position.index] = F.cross_entropy(logits, labels, reduction="sum").item()
            best = logits.topk(min(5, size), dim=1).indices
            cells = (labels * size + best[:, 0]).cpu()
            counts[:-1] += torch.bincount(cells, minlength=size * size)
            counts[-1] += (best == labels[:, None]).any(1).sum().cpu()
    finally:
        for module, training in modes:
            module.training = training
    ranks.sum(losses)
    ranks.sum(counts)
    confusion: np.ndarray = counts[:-1].view(size, size).numpy()
    return summarise(confusion, math.fsum(losses.tolist()), int(counts[-1]), classes)
