"""`resnet3d`: ResNet-10, -18, -34 and -50 with convolutions in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

__all__ = ["ResNet3d", "resnet3d"]

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet3d(
    num_classes: int,
    depth: Literal[10, 18, 34, 50] = 18,
    width: int = 64,
    stem: Literal["7x7x7", "3x3x3"] = "7x7x7",
    dropout: float = 0.0,
) -> ResNet3d:
    """A ResNet for volumes (He et al. 2016; Hara et al. 2018): `[B, C, D, H, W]` floats -> logits `[B, num_classes]`.

    `width` is the number of channels of the first stage; each further one has twice as many. The stem `7x7x7` has a
    stride of 2 and a max-pool of stride 2 after it; `3x3x3` keeps the resolution of small volumes. `model.in_channels`
    is the number of channels; `dropout` acts on the pooled features.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"depth is one of {', '.join(map(str, _BLOCKS))}")
    if stem not in ("7x7x7", "3x3x3"):
        raise ValueError("stem is 7x7x7 or 3x3x3")
    if width < 1:
        raise ValueError("width is 1 or more")
    return ResNet3d(num_classes, _BLOCKS[depth], depth >= 50, width, stem == "7x7x7", dropout)


class ResNet3d(nn.Module):
    """The stem, four stages of blocks, and the head `fc`."""

    def __init__(
        self, num_classes: int, blocks: Sequence[int], bottleneck: bool, width: int, large: bool, dropout: float
    ) -> None:
        super().__init__()
        size, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv3d(3, width, size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, 2, 1) if large else nn.Identity()
        channels, stages = width, list[nn.Module]()
        for stage, count in enumerate(blocks):
            made: list[nn.Module] = []
            for place in range(count):
                stride = 2 if stage and not place else 1
                made.append(_Block(channels, width << stage, stride, bottleneck))
                channels = (width << stage) * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*made))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, volumes: Tensor) -> Tensor:
        features = self.maxpool(self.relu(self.bn1(self.conv1(volumes))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        # a mean and not AdaptiveAvgPool3d, whose backward pass has no deterministic kernel on CUDA
        return self.fc(self.dropout(features.mean(dim=(2, 3, 4))))


class _Block(nn.Module):
    """Two convolutions, or a bottleneck of three, beside an identity or a projection."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        if bottleneck:
            layers = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            layers = [(channels, width, 3, stride), (width, out, 3, 1)]
        parts: list[nn.Module] = []
        for before, after, size, step in layers:
            parts += [
                nn.Conv3d(before, after, size, step, size // 2, bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*parts[:-1])
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, features: Tensor) -> Tensor:
        kept = features if self.downsample is None else self.downsample(features)
        return self.relu(self.body(features) + kept)
