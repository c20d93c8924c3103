"""Focal loss: samples that are easy already count less."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raycls.config.sections.types import NotNegative
from raycls.tasks.losses.build import Loss
from raycls.tasks.losses.labels import expected

__all__ = ["focal"]


def focal(*, gamma: NotNegative = 2.0) -> Loss:
    """`-(1 - p)^gamma log p` of the probability p of the class (Lin et al. 2017, equation 4); 0 is cross entropy.

    The balancing factor alpha of equation 5 is `loss.balance: weights`.
    """

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        # p may be 1 in float32, where the slope of (1 - p)^gamma is infinite for gamma < 1
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return expected(-(rest**gamma) * log_p, targets, weights)

    return loss
