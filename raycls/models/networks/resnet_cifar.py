"""`resnet18_cifar`: ResNet-18 for images of about 32x32 pixels."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

__all__ = ["resnet18_cifar"]


def resnet18_cifar(num_classes: int, dropout: float = 0.0) -> ResNet:
    """ResNet-18 (He et al. 2016) that keeps the resolution of small images at its start.

    The 7x7 stem of stride 2 becomes a 3x3 one of stride 1 and the max-pool goes, so an image of 32x32
    reaches the last stage as 4x4 and not as 1x1. Parameter names are those of torchvision's `resnet18`.
    `dropout` acts on the pooled features. Input `[B, 3, H, W]`, output logits `[B, num_classes]`.
    """
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()  # type: ignore[assignment]
    if dropout:
        # Beside the pooling, which has no parameters, the names of the weights stay as they are.
        model.avgpool = nn.Sequential(model.avgpool, nn.Dropout(dropout))  # type: ignore[assignment]
    return model
