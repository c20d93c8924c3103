"""`unet`: a U-Net in two or three dimensions."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["UNet", "unet"]

_LAYERS: dict[int, tuple[Any, Any, Any, dict[str, Any]]] = {
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d}),
}


def unet(
    num_classes: int,
    dimensions: Literal[2, 3] = 2,
    width: int = 32,
    depth: int = 4,
    norm: Literal["batch", "instance"] = "batch",
    dropout: float = 0.0,
) -> UNet:
    """A U-Net (Ronneberger et al. 2015; Cicek et al. 2016 in 3D): images `[B, C, H, W]` or volumes `[B, C, D, H, W]`
    -> logits `[B, num_classes, ...]` of the same size.

    `width` is the number of channels at full size; each of the `depth` levels below has half of the size and twice as
    many. Convolutions are padded, with `norm` after each. `dropout` acts at the lowest level.
    """
    if dimensions not in _LAYERS:
        raise ValueError("dimensions is 2 or 3")
    if norm not in ("batch", "instance"):
        raise ValueError("norm is batch or instance")
    if width < 1 or depth < 1:
        raise ValueError("width and depth are 1 or more")
    return UNet(num_classes, dimensions, width, depth, norm, dropout)


class UNet(nn.Module):
    """The way down, the way up, and the head `fc`, a convolution of one pixel."""

    def __init__(self, num_classes: int, dimensions: int, width: int, depth: int, norm: str, dropout: float) -> None:
        super().__init__()
        conv, up, pool, norms = _LAYERS[dimensions]
        widths = [width << level for level in range(depth + 1)]

        def block(inside: int, out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for channels in (inside, out):
                made = norms[norm](out, affine=True)
                layers += [conv(channels, out, 3, padding=1, bias=False), made, nn.ReLU(inplace=True)]
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(block(before, after) for before, after in zip([3, *widths], widths, strict=False))
        self.pool = pool(2)
        self.dropout = nn.Dropout(dropout)
        self.grow = nn.ModuleList(up(2 * wide, wide, 2, 2) for wide in reversed(widths[:-1]))
        self.up = nn.ModuleList(block(2 * wide, wide) for wide in reversed(widths[:-1]))
        self.fc = conv(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            images = block(images if not level else self.pool(images))
            kept.append(images)
        images = self.dropout(kept.pop())
        for grow, block in zip(self.grow, self.up, strict=True):
            beside, images = kept.pop(), grow(images)
            lacking = [have - got for have, got in zip(beside.shape[2:], images.shape[2:], strict=True)]
            if any(lacking):  # a side that could not be halved
                images = F.pad(images, [part for more in reversed(lacking) for part in (0, more)])
            images = block(torch.cat([beside, images], 1))
        return self.fc(images)
