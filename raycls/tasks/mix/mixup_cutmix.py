"""MixUp or CutMix: one of them for each micro-batch."""

from __future__ import annotations

import torch
from torch import Tensor

from raycls.config.sections.types import Fraction, Positive
from raycls.tasks.mix.build import BatchOperation
from raycls.tasks.mix.cutmix import cutmix
from raycls.tasks.mix.mixup import mixup, sometimes

__all__ = ["mixup_cutmix"]


def mixup_cutmix(
    num_classes: int,
    *,
    mixup_alpha: Positive = 0.2,
    cutmix_alpha: Positive = 1.0,
    p: Fraction = 1.0,
    switch: Fraction = 0.5,
) -> BatchOperation:
    """With probability `p` a micro-batch is mixed: with probability `switch` by `cutmix`, else by `mixup`."""
    blend, paste = mixup(num_classes, alpha=mixup_alpha), cutmix(num_classes, alpha=cutmix_alpha)

    def either(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return (paste if float(torch.rand(())) < switch else blend)(images, targets)

    return sometimes(either, p, num_classes)
