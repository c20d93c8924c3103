"""The layers of networks in order, counted by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from raycls.models.layers import layers


def made(name: str) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Inception's, of its own default
        return get_model(name)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vgg11_bn", 8 + 3),
        ("resnet50", 1 + 3 + 4 + 6 + 3 + 1),
        ("densenet121", 1 + (6 + 12 + 24 + 16) + 3 + 1),
        ("mobilenet_v3_small", 1 + 11 + 1 + 2),
        ("efficientnet_b0", 1 + (1 + 2 + 2 + 3 + 3 + 4 + 1) + 1 + 1),
        ("googlenet", 3 + 9 + 2 + 2 + 1),  # two auxiliary heads of a convolution and two linear layers: see below
        ("convnext_tiny", 1 + (3 + 3 + 9 + 3) + 3 + 1),
        ("swin_t", 1 + (2 + 2 + 6 + 2) + 3 + 1),
        ("vit_b_16", 1 + 12 + 1),
    ],
)
def test_a_layer_is_a_block(name: str, count: int) -> None:
    model = made(name)
    found = layers(model)
    assert sorted(key for layer in found for key in layer.parameters) == sorted(
        key for key, _ in model.named_parameters()
    )
    assert len(found) == count - (2 if name == "googlenet" else 0)  # each auxiliary head is one block


def test_norms_and_loose_parameters_belong_to_a_block() -> None:
    first, second, *_, last = layers(made("vit_b_16"))
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight", "conv_proj.bias"} == set(first.parameters)
    assert all(name.startswith("encoder.layers.encoder_layer_0.") for name in second.parameters)
    assert set(last.parameters) == {"heads.head.weight", "heads.head.bias"}
    assert layers(made("resnet18"))[0].parameters == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert "encoder.ln.weight" in layers(made("vit_b_16"))[-2].parameters


def test_a_network_around_a_network_is_opened() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = made("resnet18")
            self.scale = nn.Parameter(torch.ones(1, device="meta"))

    found = layers(Wrapped())
    assert [layer.path for layer in found][1:3] == ["backbone.layer1.0", "backbone.layer1.1"]
    assert found[0].parameters[0] == "scale"


def test_tied_weights_are_in_the_first_layer_that_has_them() -> None:
    linear = nn.Linear(4, 4)
    assert [layer.parameters for layer in layers(nn.Sequential(linear, nn.Linear(4, 4), linear))] == [
        ("0.weight", "0.bias"),
        ("1.weight", "1.bias"),
    ]
    assert [layer.parameters for layer in layers(nn.Linear(2, 2))] == [("weight", "bias")]
