"""`fast_cnn`: a network that learns small images in few CPU-seconds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from raycls.config.sections.types import Count, Positive, UpToOne

__all__ = ["FastCnn", "fast_cnn"]


def fast_cnn(
    num_classes: int,
    widths: list[Count] = [64, 128, 256],  # noqa: B006 (read, never changed)
    depths: list[Count] = [1, 2, 2],  # noqa: B006
    momentum: UpToOne = 0.4,
    scale: Positive = 0.125,
) -> FastCnn:
    """A network of stages for small images; see `FastCnn`. ValueError where the lists do not fit."""
    if len(depths) != len(widths) or not depths:
        raise ValueError(f"depths and widths have an entry per stage, found {len(depths)} and {len(widths)}")
    return FastCnn(num_classes, widths, depths, momentum, scale)


class FastCnn(nn.Module):
    """Stages of `depths[i]` 3x3 convolutions with `widths[i]` channels, the max over positions, one linear layer.

    A stage halves height and width with a 2x2 max-pool between its first convolution and the norm of that, where batch
    norm and what follows cost a quarter. As in Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section
    3, a convolution starts as the identity of as many channels as it can pass on, running statistics move by `momentum`
    in a step, so that those of a short run are of its end, and the logits are multiplied by `scale`. Its whitening
    layer, fixed scales of norms and GELU are left out. Input `[B, 3, H, W]` with H or W above 2 to the number of
    stages, as batch norm over a single image needs more than one position; output logits `[B, num_classes]`.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], depths: Sequence[int], momentum: float, scale: float
    ) -> None:
        super().__init__()
        inputs, stages = 3, list[nn.Module]()
        for width, depth in zip(widths, depths, strict=True):
            layers: list[nn.Module] = []
            for number in range(depth):
                pool = [] if number else [nn.MaxPool2d(2, ceil_mode=True)]
                norm = nn.BatchNorm2d(width, momentum=momentum)
                layers += [_convolution(inputs, width), *pool, norm, nn.ReLU()]
                inputs = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(inputs, num_classes, bias=False)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stages(images).amax(dim=(2, 3))) * self.scale


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(made.weight.data[: min(inputs, outputs)])
    return made
