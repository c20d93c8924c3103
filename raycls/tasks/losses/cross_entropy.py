"""Cross entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from raycls.config.sections.types import UnderOne
from raycls.tasks.losses.build import Loss

__all__ = ["cross_entropy"]


def cross_entropy(*, label_smoothing: UnderOne = 0.0) -> Loss:
    """Cross entropy; `label_smoothing` is the weight of the uniform distribution (Szegedy et al. 2016, section 7)."""

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        return F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=label_smoothing)

    return loss
