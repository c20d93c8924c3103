"""Binary cross entropy: each class is a question of its own, yes or no."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raycls.config.sections.types import UnderOne
from raycls.tasks.losses.build import Loss
from raycls.tasks.losses.labels import smoothed

__all__ = ["bce"]


def bce(
    *,
    label_smoothing: UnderOne = 0.0,
    threshold: Annotated[float, Field(ge=0, lt=1)] | Literal["off"] = "off",
    over_classes: Literal["mean", "sum"] = "mean",
) -> Loss:
    """Binary cross entropy of one-hot or mixed labels (Wightman et al. 2021, ResNet strikes back, section 2.2).

    `threshold`: every class whose share of a mixed label is greater counts as fully there, the others as not at all.
    `over_classes`: whether the loss of a sample is the mean or the sum over the classes.
    """

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        classes = logits.shape[1]
        there = smoothed(targets, classes, label_smoothing)
        weighted = there if weights is None else there * weights
        total = weighted.sum(1, keepdim=True)
        if threshold != "off":
            weighted = (there > threshold) * total
        costs = weighted * F.softplus(-logits) + (total - weighted) * F.softplus(logits)
        return costs.sum() / (classes if over_classes == "mean" else 1)

    return loss
