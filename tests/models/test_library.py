"""Every classification model of torchvision, by name."""

from __future__ import annotations

import inspect

import pytest
import torch
import torchvision.models
from torch import nn

from raycls.config.names.networks.torchvision_models import VIDEO
from raycls.config.sections.model import ModelConfig
from raycls.models import library
from raycls.models.surgery import find_head
from raycls.models.zoo import build, probe

NAMES = sorted(library.builtins())
SMALLEST = {  # one of each family: the class that the builders return
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5",
    "squeezenet1_0", "swin_t", "vgg11", "vit_b_32",
}  # fmt: skip


def device_for(name: str) -> str:
    # Without memory the largest networks cost nothing; RegNet's builder computes with tensors, which needs some.
    return "cpu" if name.startswith("regnet") else "meta"


def built(name: str, num_classes: int = 7) -> nn.Module:
    with torch.device(device_for(name)):
        return build(ModelConfig(name=name), num_classes, seed=0)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not name.startswith("regnet") or name.endswith(("400mf", "_800mf"))]
)
def test_every_model_has_a_head_for_the_classes(name: str) -> None:
    model = built(name)
    head = find_head(model, 7)
    assert head is not None
    # and it is where torchvision's own has 1000 outputs
    assert [key for key, module in model.named_modules() if getattr(module, "out_features", None) == 1000] == []
    layer = model.get_submodule(head)
    assert layer is [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def test_no_model_is_forgotten() -> None:
    images = torchvision.models.list_models(module=torchvision.models)
    assert set(NAMES) == {*images, *VIDEO}  # those are in tests/models/volumes
    families = {inspect.signature(torchvision.models.get_model_builder(name)).return_annotation for name in images}
    assert {inspect.signature(torchvision.models.get_model_builder(name)).return_annotation for name in SMALLEST} == (
        families
    )


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_each_family_returns_plain_logits(name: str) -> None:
    size = 299 if name == "inception_v3" else 224
    model = built(name)
    device = next(model.parameters()).device
    probe(model, (torch.zeros(1, 3, size, size, device=device),), (2, 7))
    # in training too, where GoogLeNet and Inception would add auxiliary outputs
    assert model.train()(torch.zeros(2, 3, size, size, device=device)).shape == (2, 7)


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_each_argument_that_is_offered_is_taken(name: str) -> None:
    builder = library.builtins()[name]
    cls = inspect.signature(builder).return_annotation
    offered = inspect.signature(library.declared(builder)).parameters.values()
    args = {parameter.name: parameter.default for parameter in offered if parameter.name != "num_classes"}
    if args.get("dropout", 0.0) is None:
        args["dropout"] = 0.1  # EfficientNet's differs by size, so none is declared
    assert args or name.startswith("shufflenet")
    with torch.device(device_for(name)):
        assert isinstance(library.construct(builder, 3, args, None), cls)


@pytest.mark.parametrize(
    ("name", "offered", "refused"),
    [
        ("resnet50", {"zero_init_residual", "replace_stride_with_dilation"}, {"block", "layers", "norm_layer"}),
        ("densenet121", {"drop_rate", "bn_size"}, {"growth_rate", "num_init_features"}),
        ("googlenet", {"dropout", "transform_input"}, {"aux_logits", "blocks"}),
        ("mobilenet_v3_small", {"dropout", "width_mult"}, {"last_channel", "kwargs"}),
        ("vit_b_16", {"image_size", "attention_dropout"}, {"patch_size", "hidden_dim"}),
    ],
)
def test_arguments_by_hand(name: str, offered: set[str], refused: set[str]) -> None:
    names = set(inspect.signature(library.declared(library.builtins()[name])).parameters)
    assert offered <= names
    assert not refused & names
    assert "num_classes" in names
