"""`resnet18_cifar`: ResNet-18 without the two early halvings."""

from __future__ import annotations

import torch
import torchvision.models
from torch import nn

from raycls.models.networks.resnet_cifar import resnet18_cifar


def test_the_last_stage_keeps_4x4_positions_of_32x32() -> None:
    model = resnet18_cifar(10).eval()
    shapes: list[tuple[int, ...]] = []
    model.layer4.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [(2, 512, 4, 4)]


def test_only_the_stem_differs_from_torchvision() -> None:
    own = {name: tuple(value.shape) for name, value in resnet18_cifar(10, dropout=0.2).state_dict().items()}
    theirs = {
        name: tuple(value.shape) for name, value in torchvision.models.resnet18(num_classes=10).state_dict().items()
    }
    assert own.pop("conv1.weight") == (64, 3, 3, 3)
    assert theirs.pop("conv1.weight") == (64, 3, 7, 7)
    assert own == theirs


def test_dropout_zeroes_pooled_features() -> None:
    torch.manual_seed(0)
    model = resnet18_cifar(10, dropout=0.5)
    seen: list[torch.Tensor] = []
    model.fc.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 16, 16))
        model.eval()(torch.randn(4, 3, 16, 16))
    zeros = [(features == 0).float().mean().item() for features in seen]
    assert 0.3 < zeros[0] < 0.8
    assert zeros[1] < zeros[0] - 0.2
    assert isinstance(model.maxpool, nn.Identity)
