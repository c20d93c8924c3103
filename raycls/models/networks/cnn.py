"""`cnn`: VGG- and ResNet-shaped networks by their arguments, for a config and for a search over depth and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from raycls.config.sections.types import Count, UnderOne

__all__ = ["Cnn", "Residual", "cnn"]


def cnn(
    num_classes: int,
    blocks: list[Count] = [2, 2, 2, 2],  # noqa: B006 (read, never changed)
    widths: list[Count] = [64, 128, 256, 512],  # noqa: B006
    kernel: Annotated[int, Field(ge=1)] = 3,
    expansion: Count = 1,
    batch_norm: bool = True,
    dropout: UnderOne = 0.0,
    residual: bool = True,
) -> Cnn:
    """A network of stages, for images of any size; see `Cnn`. ValueError where the arguments do not fit together."""
    if len(blocks) != len(widths) or not blocks:
        raise ValueError(f"blocks and widths have an entry per stage, found {len(blocks)} and {len(widths)}")
    if min(*blocks, *widths, kernel, expansion) < 1:
        raise ValueError("blocks, widths, kernel and expansion must be 1 or more")
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, it is {kernel}")
    if expansion > 1 and not residual:
        raise ValueError("expansion is for residual: true")
    return Cnn(num_classes, blocks, widths, kernel, expansion, batch_norm, dropout, residual)


class Cnn(nn.Module):
    """Stages of `blocks[i]` blocks with `widths[i]` channels, then the mean over positions and one linear layer.

    With `residual` (He et al. 2016): a stem of one convolution without stride, then blocks of two convolutions, or of
    the three of a bottleneck where `expansion` is above 1, which gives `widths[i] * expansion` channels; each stage but
    the first begins with a stride of 2. `blocks: [2, 2, 2, 2]` and the default widths are ResNet-18 for small images.
    Without (Simonyan and Zisserman 2015): a block is one convolution, and each stage ends with a 2x2 max-pool:
    `blocks: [1, 1, 2, 2, 2]` are the convolutions of VGG-11. Input `[B, 3, H, W]`, output logits `[B, num_classes]`.
    """

    def __init__(
        self,
        num_classes: int,
        blocks: Sequence[int],
        widths: Sequence[int],
        kernel: int,
        expansion: int,
        batch_norm: bool,
        dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(3, widths[0], kernel, 1, batch_norm), nn.ReLU()) if residual else None
        inputs = widths[0] if residual else 3
        stages: list[nn.Module] = []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            made: list[nn.Module] = []
            for block in range(count):
                stride = 2 if stage and not block else 1
                if residual:
                    made.append(Residual(inputs, width, kernel, stride, expansion, batch_norm))
                    inputs = width * expansion
                else:
                    made += [*_layer(inputs, width, kernel, 1, batch_norm), nn.ReLU()]
                    inputs = width
            stages.append(nn.Sequential(*made) if residual else nn.Sequential(*made, nn.MaxPool2d(2, ceil_mode=True)))
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        found = images if self.stem is None else self.stem(images)
        return self.classifier(self.dropout(self.stages(found).mean(dim=(2, 3))))


class Residual(nn.Module):
    """Two convolutions, or the three of a bottleneck (stride in the middle), added to what comes in."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int, expansion: int, batch_norm: bool) -> None:
        super().__init__()
        outputs = width * expansion
        if expansion == 1:
            layers = [
                *_layer(inputs, width, kernel, stride, batch_norm),
                nn.ReLU(),
                *_layer(width, width, kernel, 1, batch_norm),
            ]
        else:
            layers = [
                *_layer(inputs, width, 1, 1, batch_norm),
                nn.ReLU(),
                *_layer(width, width, kernel, stride, batch_norm),
                nn.ReLU(),
                *_layer(width, outputs, 1, 1, batch_norm),
            ]
        self.block = nn.Sequential(*layers)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_layer(inputs, outputs, 1, stride, batch_norm))
        self.relu = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        return self.relu(self.block(values) + self.shortcut(values))


def _layer(inputs: int, outputs: int, kernel: int, stride: int, batch_norm: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not batch_norm)
    return [convolution, nn.BatchNorm2d(outputs)] if batch_norm else [convolution]
