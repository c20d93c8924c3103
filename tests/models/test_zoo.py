"""From a config to a network: names, arguments, seeds, plug-ins, and the probe."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
from harness.errors import raised
from harness.plugins import user_module
from torch import nn

from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError, ModelError
from raycls.models.zoo import build, check, probe

PLUGIN = """
import random, numpy, torch
def net(num_classes, hidden=4):
    layer = torch.nn.Linear(12, num_classes)
    layer.bias.data.fill_(random.random() + numpy.random.rand() + hidden)
    return torch.nn.Sequential(torch.nn.Flatten(), layer)
def no_net(num_classes):
    return num_classes
def lazy(num_classes):
    return torch.nn.LazyLinear(num_classes)
def broken(num_classes):
    raise KeyError('nothing here')
"""


def black(size: int) -> tuple[torch.Tensor, ...]:
    return (torch.zeros(1, 3, size, size),)


def model_config(name: str = "tiny_cnn", **fields: Any) -> ModelConfig:
    return ModelConfig.model_validate({"name": name, **fields})


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    with user_module(tmp_path, "models_of_test_zoo", PLUGIN) as name:
        yield name


@pytest.mark.parametrize("fields", [{}, {"init": "xavier_uniform"}, {"init": "kaiming"}, {"args": {"dropout": 0.3}}])
def test_weights_follow_from_the_arguments_alone(fields: dict[str, Any]) -> None:
    torch.manual_seed(1)
    first = build(model_config(**fields), 10, seed=5)
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        second = build(model_config(**fields), 10, seed=5)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert same(first, second)
    assert not same(first, build(model_config(**fields), 10, seed=6))
    build(model_config(), 10, seed=2**63 - 1)


def test_generators_are_left_as_they_were(plugin: str) -> None:
    def draw() -> list[float]:
        return [torch.rand(1).item(), float(np.random.rand()), random.random()]

    for config in (model_config(), model_config(f"{plugin}:net"), model_config("resnet18")):
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        expected = draw()
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        build(config, 3, seed=0)
        assert draw() == expected


def test_init_reaches_every_layer_and_keeps_the_architecture() -> None:
    model = build(model_config("resnet18", init="xavier_uniform"), 10, seed=0)
    assert not model.get_parameter("fc.bias").any()
    bound = (6 / (512 + 10)) ** 0.5
    assert 0.98 * bound < model.get_parameter("fc.weight").abs().max() <= bound


def test_torchvision_by_name_is_torchvision() -> None:
    model = build(model_config("resnet18"), 5, seed=9)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        assert same(model, torchvision.models.resnet18(num_classes=5))


def test_a_plug_in_is_called_with_the_classes_and_its_arguments(plugin: str) -> None:
    config = model_config(f"{plugin}:net", args={"hidden": 100})
    check(config)
    first, second = build(config, 3, seed=4), build(config, 3, seed=4)
    assert first(torch.zeros(2, 3, 2, 2)).shape == (2, 3)
    assert same(first, second)  # numpy's and Python's generators are seeded too
    assert first.get_parameter("1.bias").min() >= 100
    probe(first, black(2), (2, 3))


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("no_net", "network"),
        ("lazy", "lazy"),
        ("broken", r"nothing here.*models_of_test_zoo\.py:12"),
    ],
)
def test_a_plug_in_that_is_no_network_is_refused(plugin: str, attribute: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build(model_config(f"{plugin}:{attribute}"), 3, seed=0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "resnet81"}, "resnet18"),
        ({"name": "tiny_cnn", "args": {"widht": 3}}, "width"),
        ({"name": "resnet50", "args": {"zero_init_residuals": True}}, "zero_init_residual"),
        ({"name": "resnet50", "args": {"norm_layer": "x"}}, "norm_layer"),
        ({"name": "resnet50", "args": {"num_classes": 3}}, "num_classes"),
        ({"name": "resnet50", "weights": "IMAGENET1K_V3"}, "IMAGENET1K_V"),
        ({"name": "tiny_cnn", "weights": "DEFAULT"}, "DEFAULT"),
        ({"name": "os:system"}, "os"),
    ],
)
def test_problems_are_found_before_anything_is_built(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(ModelConfig.model_validate(fields))


@pytest.mark.parametrize("name", ["resnet50", "tiny_cnn", "vit_b_16", "resnet18_cifar"])
def test_what_is_right_passes(name: str) -> None:
    check(model_config(name))
    check(model_config(name, args={} if name == "resnet50" else {"dropout": 0.1}))


def test_a_value_that_the_network_refuses_is_a_model_error() -> None:
    with raised(ModelError, found=re.compile(r"width .*\b2\b.* 1"), fix=re.compile(r"model\.args")):
        build(model_config(args={"width": 1}), 10, seed=0)
    with pytest.raises(ModelError, match="cannot be built"):
        build(model_config("resnet18", args={"zero_init_residual": True, "groups": 2}), 10, seed=0)


class Sizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(images).flatten(1))


def test_the_probe_names_the_last_place_in_the_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for here, place in ((Path(__file__).parent, f"{__file__}:"), (tmp_path, "torch/nn/modules/linear.py:")):
        monkeypatch.chdir(here)  # the code is under the working directory, or is not
        with pytest.raises(ModelError) as caught:
            probe(Sizes(), black(3), (2, 4))
        assert place in str(caught.value.found)


def test_the_probe_names_what_is_wrong_and_changes_nothing() -> None:
    model = Sizes()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probe(model, black(2), (2, 4))
    with pytest.raises(ModelError, match="images of 3x3"):
        probe(model, black(3), (2, 4))
    with raised(ModelError, found=re.compile(r"\[2, 4\]"), valid=re.compile(r"\[2, 9\]")):
        probe(model, black(2), (2, 9))
    assert (model.training, model.norm.training, model.head.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_probe_sends_who_gives_the_network_more_than_it_takes_to_the_task() -> None:
    with raised(ModelError, found=re.compile("TypeError"), fix=re.compile("`example` of the task")) as caught:
        probe(Sizes(), (*black(2), torch.zeros(1)), None)
    assert "tensors of shape [3, 2, 2] and []" in str(caught.value)
