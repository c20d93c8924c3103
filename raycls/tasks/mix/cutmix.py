"""CutMix: a box of each image is cut out of another one, and the labels are mixed by area."""

from __future__ import annotations

from torchvision.transforms import v2

from raycls.config.sections.types import Fraction, Positive
from raycls.tasks.mix.build import BatchOperation
from raycls.tasks.mix.mixup import sometimes

__all__ = ["cutmix"]


def cutmix(num_classes: int, *, alpha: Positive = 1.0, p: Fraction = 1.0) -> BatchOperation:
    """Torchvision's CutMix (Yun et al. 2019), for a micro-batch with probability `p`.

    Its partner is the image before it in the micro-batch, the box is the same for all of it, and its area is drawn from
    Beta(alpha, alpha). Labels are mixed by the pixels that were pasted, not by those that were meant to be.
    """
    return sometimes(v2.CutMix(alpha=alpha, num_classes=num_classes), p, num_classes)
