"""Poly-1 loss: cross entropy with another weight of the first term of its series."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raycls.config.sections.types import UnderOne
from raycls.tasks.losses.build import Loss
from raycls.tasks.losses.labels import expected, smoothed

__all__ = ["poly"]


def poly(
    *, epsilon: Annotated[float, Field(ge=-1, allow_inf_nan=False)] = 1.0, label_smoothing: UnderOne = 0.0
) -> Loss:
    """`-log p + epsilon (1 - p)` of the probability p of the class (Leng et al. 2022, PolyLoss, section 4)."""

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        labels = smoothed(targets, logits.shape[1], label_smoothing) if label_smoothing else targets
        return expected(epsilon * (1 - log_p.exp()) - log_p, labels, weights)

    return loss
