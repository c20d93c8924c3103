"""Random erasing: a box of an image is filled."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import RandomErasing

from raycls.config.sections.types import Finite, Fraction, Positive, UpToOne
from raycls.tasks.mix.build import BatchOperation

__all__ = ["random_erasing"]


def random_erasing(
    num_classes: int,
    *,
    p: Fraction = 0.5,
    scale: tuple[UpToOne, UpToOne] = (0.02, 0.33),
    ratio: tuple[Positive, Positive] = (0.3, 3.3),
    fill: Finite | Literal["random"] = 0.0,
) -> BatchOperation:
    """In each image with probability `p` a box of its own (Zhong et al. 2020), drawn as torchvision's RandomErasing
    does: its part of the image is in `scale`, its height to its width in `ratio`. Where no such box fits, none is made.

    `fill` is a value after normalisation, 0 being the mean colour, or `random`: normally distributed pixels. The labels
    stay what they are.
    """
    if scale[0] > scale[1] or ratio[0] > ratio[1]:
        raise ValueError("scale and ratio are each two numbers, min and max")

    def apply(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        erased = images.clone()
        for index in torch.nonzero(torch.rand(len(images)) < p)[:, 0].tolist():
            top, left, height, width, _ = RandomErasing.get_params(images[index], scale, ratio, [0.0])
            box = erased[index, :, top : top + height, left : left + width]
            if height == images.shape[2]:  # torchvision's word for no box: a real one is smaller than the image
                continue
            if fill == "random":
                box.normal_()
            else:
                box.fill_(fill)
        return erased, targets

    return apply
