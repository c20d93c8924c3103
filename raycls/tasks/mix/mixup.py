"""MixUp: each image is blended with another one, and so are their labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from raycls.config.sections.types import Fraction, Positive
from raycls.tasks.losses.labels import shares
from raycls.tasks.mix.build import BatchOperation

__all__ = ["mixup", "sometimes"]


def mixup(num_classes: int, *, alpha: Positive = 0.2, p: Fraction = 1.0) -> BatchOperation:
    """Torchvision's MixUp (Zhang et al. 2018), for a micro-batch with probability `p`.

    Its partner is the image before it in the micro-batch, and all of it is mixed by one ratio from Beta(alpha, alpha).
    The default is that of torchvision's recipe for ImageNet.
    """
    return sometimes(v2.MixUp(alpha=alpha, num_classes=num_classes), p, num_classes)


def sometimes(operation: BatchOperation, p: float, num_classes: int) -> BatchOperation:
    """`operation` on a micro-batch with probability `p`; its targets are shares of the classes in any case."""

    def apply(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        targets = shares(targets, num_classes)
        return operation(images, targets) if p >= 1 or float(torch.rand(())) < p else (images, targets)

    return apply
