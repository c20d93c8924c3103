"""Symmetric cross entropy, for labels some of which are wrong."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raycls.config.sections.types import NotNegative
from raycls.tasks.losses.build import Loss
from raycls.tasks.losses.labels import expected

__all__ = ["symmetric_cross_entropy"]


def symmetric_cross_entropy(
    *,
    alpha: NotNegative = 0.1,
    beta: NotNegative = 1.0,
    log_zero: Annotated[float, Field(lt=0, allow_inf_nan=False)] = -4.0,
) -> Loss:
    """`alpha * cross entropy + beta * reverse cross entropy` (Wang et al. 2019, section 3.2).

    Reverse, the label takes the place of the prediction: `-sum over c of p[c] log label[c]`. `log_zero` stands for the
    logarithm of 0 (A in the paper), so that it is `-log_zero * (1 - p)` of the probability p of the class.
    """

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        return expected(-beta * log_zero * (1 - log_p.exp()) - alpha * log_p, targets, weights)

    return loss
