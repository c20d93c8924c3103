"""Pruned networks as a config describes them: made again without the library that pruned them; zeros that stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from raycls.config.load import load_text, to_yaml
from raycls.config.sections.model import ModelConfig
from raycls.config.sections.optim import OptimConfig
from raycls.errors import ConfigError, ModelError
from raycls.models import zoo
from raycls.models.pruned import MASK, apply, describe, hold_masks, masked_weights
from raycls.train.optimizers.build import build_optimizer

_SIZES: dict[str, Any] = {
    "features.0": {"out_channels": 2},
    "features.1": {"num_features": 2},
    "features.3": {"in_channels": 2},
}


class Scaled(nn.Module):
    """A parameter that no layer owns, a layer norm, and a depthwise convolution."""

    def __init__(self, num_classes: int, width: int = 6) -> None:
        super().__init__()
        self.lift = nn.Conv2d(3, width, 1)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.linspace(1, 2, width))
        self.register_buffer("shift", torch.linspace(0, 1, width))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.deep(self.lift(images)).mean((2, 3)))
        return self.head(features * self.scale + self.shift)


def test_a_description_makes_the_smaller_network_again() -> None:
    torch.manual_seed(0)
    before, after = Scaled(4, 6), Scaled(4, 3)

    sizes = describe(before, after)
    apply(before, sizes)

    assert sizes == {
        "scale": [3],
        "shift": [3],
        "lift": {"out_channels": 3},
        "deep": {"in_channels": 3, "out_channels": 3, "groups": 3},
        "norm": {"normalized_shape": [3]},
        "head": {"in_features": 3},
    }
    assert [tensor.shape for tensor in before.state_dict().values()] == [
        tensor.shape for tensor in after.state_dict().values()
    ]
    before.load_state_dict(after.state_dict())
    images = torch.randn(2, 3, 5, 5)
    assert torch.equal(before(images), after(images))
    assert (before.deep.groups, before.norm.normalized_shape) == (3, (3,))
    before(images).sum().backward()
    assert all(parameter.grad is not None for parameter in before.parameters())


def test_the_zoo_builds_it_the_same_each_time_from_a_config_as_it_is_written() -> None:
    run = load_text("model: {name: tiny_cnn, args: {width: 8}}").run
    section = run.model.model_copy(update={"pruned": {**_SIZES, "classifier.weight": "masked"}})
    again = load_text(to_yaml(run.model_copy(update={"model": section}))).run.model
    assert again == section
    generator = torch.get_rng_state()
    first, second = (zoo.build(each, 3, seed=5) for each in (section, again))
    assert torch.equal(torch.get_rng_state(), generator)
    for (name, one), (_, other) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    whole = zoo.build(run.model, 3, seed=5).state_dict()
    assert torch.equal(first.state_dict()["features.3.weight"], whole["features.3.weight"][:, :2])
    assert first.state_dict()["classifier.weight" + MASK].all()


def test_another_model_leaves_it_out() -> None:
    text = "model: {name: tiny_cnn, pruned: {features.0: {out_channels: 2}}}"
    loaded = load_text(text, "c.yaml", ["model.name=resnet18_cifar"])
    assert loaded.run.model.pruned == {}
    assert any("model.pruned" in note and "tiny_cnn" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("pruned", "where", "found"),
    [
        ({"features.99": {"out_channels": 2}}, "features.99", "no such layer"),
        ({"features.0": {"width": 2}}, "features.0.width", "Conv2d has no such size"),
        ({"features.0": {"out_channels": 99}}, "features.0.weight", "[4, 3, 3, 3]"),
        ({"features.0": {"kernel_size": 2}}, "features.0.kernel_size", "no such size"),
        ({"features.0": {"kernel_size": [9, 9]}}, "features.0.weight", "[4, 3, 3, 3]"),
        ({"features.0.weights": [2]}, "features.0.weights", "no such parameter"),
        ({"features.0.weight": [2, 3]}, "features.0.weight", "does not become [2, 3]"),
        ({"features.0": "masked"}, "features.0", "no such parameter"),
    ],
)
def test_a_description_of_another_network_is_refused(pruned: dict[str, Any], where: str, found: str) -> None:
    with pytest.raises(ModelError) as error:
        zoo.build(ModelConfig(name="tiny_cnn", args={"width": 8}, pruned=pruned), 3, seed=0)
    assert error.value.where == f"model.pruned: {where}"
    assert found in str(error.value.found)


def test_what_is_no_description_is_refused_with_the_config() -> None:
    with pytest.raises(ConfigError) as error:
        load_text("model: {name: tiny_cnn, pruned: {features.0: {out_channels: many}}}")
    assert "model.pruned" in str(error.value)


def test_what_weights_decide_of_a_network_stays_without_them() -> None:
    given = ModelConfig(name="googlenet", weights="IMAGENET1K_V1")
    assert zoo.settled(given) == ModelConfig(name="googlenet", args={"transform_input": True})
    swag = ModelConfig(name="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")
    assert zoo.settled(swag).args == {"image_size": 384}
    own = ModelConfig(name="vit_b_16", weights="file.pth", args={"dropout": 0.1})
    assert zoo.settled(own) == ModelConfig(name="vit_b_16", args={"dropout": 0.1})


def test_the_weights_of_attention_and_of_tied_layers_are_each_named_once() -> None:
    model = nn.ModuleDict({"attend": nn.MultiheadAttention(4, 2), "one": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    model["two"] = nn.Linear(4, 4)
    model["two"].weight = model["one"].weight
    assert masked_weights(model) == ["attend.in_proj_weight", "attend.out_proj.weight", "one.weight"]


class Restless(torch.optim.Optimizer):
    """Moves every weight in each step, whatever its gradient."""

    def __init__(self, groups: Any, lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(0.1)


def _masked(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    apply(model, {"0.weight": "masked"})
    model[0].get_buffer("weight_mask").copy_(torch.rand(5, 6) > 0.5)
    with torch.no_grad():
        model[0].weight.masked_fill_(~model[0].get_buffer("weight_mask"), 0)
    return model


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "sgd", "lr": 0.1, "weight_decay": 0.1, "args": {"nesterov": True}},
        {"name": "adam", "lr": 0.1, "weight_decay": 0.1},
        {"name": "adamw", "lr": 0.1, "weight_decay": 0.1},
        {"name": "rmsprop", "lr": 0.1, "weight_decay": 0.1, "args": {"momentum": 0.5}},
    ],
    ids=lambda fields: fields["name"],
)
def test_masked_weights_stay_zero_and_the_others_are_trained_as_if_there_were_no_masked_ones(
    fields: dict[str, Any],
) -> None:
    """The oracle is the same network whose first layer multiplies its weight with the mask in the forward pass."""
    model = _masked()
    mask, plain = model[0].get_buffer("weight_mask"), copy.deepcopy(model)
    config = OptimConfig.model_validate(fields)
    optimizer = build_optimizer(config, model)
    other = nn.Sequential(*(copy.deepcopy(layer) for layer in plain))
    del other[0]._buffers["weight_mask"]
    reference = build_optimizer(config, other)
    for step in range(5):
        images = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(images).square().sum().backward()
        reference.zero_grad()
        hidden = nn.functional.linear(images, other[0].weight * mask, other[0].bias).relu()
        other[2](hidden).square().sum().backward()
        norms = [torch.nn.utils.clip_grad_norm_(each.parameters(), 1.0) for each in (model, other)]
        torch.testing.assert_close(*norms)
        optimizer.step()
        reference.step()
        assert (model[0].weight[~mask] == 0).all()
    torch.testing.assert_close(model[0].weight, other[0].weight * mask)
    torch.testing.assert_close(model[2].weight, other[2].weight)
    assert not torch.equal(model[0].weight, plain[0].weight)


def test_an_optimizer_that_moves_every_weight_does_not_reach_masked_ones() -> None:
    model = _masked()
    mask = model[0].get_buffer("weight_mask")
    optimizer = Restless(model.parameters(), lr=0.1)
    hold_masks(model, optimizer)
    before = model[0].weight.detach().clone()
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    assert (model[0].weight[~mask] == 0).all()
    torch.testing.assert_close(model[0].weight[mask], before[mask] + 0.1)
