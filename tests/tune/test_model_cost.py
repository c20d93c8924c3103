"""Parameters and operations, counted by hand, and which combinations are within a budget of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from harness.plugins import user_module

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import ModelError
from raycls.tune import model_cost
from raycls.tune.model_cost import cost_of, costs_of, within

_MODEL = """
import torch
from torch import nn


def net(num_classes, channels=5, hidden=7):
    if channels == 13:
        raise RuntimeError("thirteen")
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * channels, hidden), nn.ReLU(), nn.Linear(hidden, num_classes),
    )


class Attention(nn.Module):
    # one encoder layer of width 8 over the 4 x 4 pixels of an image
    def __init__(self, num_classes, frozen="no"):
        super().__init__()
        self.frozen = frozen
        self.lift = nn.Linear(3, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, num_classes)
        if frozen == "weights":
            self.requires_grad_(False)

    def forward(self, images):
        tokens = self.lift(images.flatten(2).mT)
        if self.frozen == "inside":
            with torch.no_grad():
                tokens = self.layer(tokens)
        elif self.frozen == "looks" and tokens.sum().item() != tokens.sum().item():
            raise RuntimeError("not a number")
        else:
            tokens = self.layer(tokens)
        return self.head(tokens[:, 0])


def picky(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    with user_module(tmp_path, "nets", _MODEL):
        yield


def run(*overrides: str) -> Run:
    return load_text("", "search.yaml", ["model.name=nets:net", *overrides]).run


def black(height: int, width: int) -> tuple[torch.Tensor]:
    return (torch.zeros(1, 3, height, width),)


def by_hand(channels: int, hidden: int, classes: int, height: int, width: int) -> tuple[int, int]:
    convolution = (3 * 9 + 1) * channels, 2 * height * width * channels * 3 * 9
    first, last = (4 * channels + 1) * hidden, (hidden + 1) * classes
    return convolution[0] + first + last, convolution[1] + 2 * 4 * channels * hidden + 2 * hidden * classes


@pytest.mark.parametrize(("channels", "hidden", "height", "width"), [(5, 7, 8, 8), (1, 1, 6, 10), (16, 32, 12, 12)])
def test_a_convolution_and_two_linear_layers_by_hand(channels: int, hidden: int, height: int, width: int) -> None:
    found = cost_of(run(f"model.args={{channels: {channels}, hidden: {hidden}}}"), 10, black(height, width))
    assert found == by_hand(channels, hidden, 10, height, width)


@pytest.mark.parametrize("frozen", ["no", "weights", "inside", "looks"])
def test_attention_by_hand_however_it_is_fused(frozen: str) -> None:
    """`looks` decides by a value, so it is counted with real numbers."""
    _, found = cost_of(run("model.name=nets:Attention", f"model.args={{frozen: {frozen}}}"), 10, black(4, 4))
    tokens, width, hidden = 16, 8, 16
    projections = 4 * tokens * width * width  # query, key, value, and what comes out
    scores, sums = tokens * tokens * width, tokens * tokens * width  # over all heads together
    ends = tokens * 3 * width + width * 10
    assert found == 2 * (ends + projections + scores + sums + 2 * tokens * width * hidden)


_FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet50",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "swin_t",
    "vgg11",
    "vit_b_16",
)
_AUXILIARY = {"inception_v3": 768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 769 * 1000}
"""Parameters of the heads that raycls leaves out of what torchvision counts: 1x1 and 5x5 convolutions with their batch
norms, and a linear layer. Those of GoogLeNet are not in torchvision's count either."""


def test_one_model_of_each_family_costs_what_torchvision_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `_ops` are 10^9 multiply-adds, rounded to three decimals, at the size that its transforms crop to."""
    for name in ("trunc_normal_", "kaiming_normal_", "normal_", "xavier_uniform_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *rest, **more: tensor)  # the values do not count
    for family in _FAMILIES:
        weights = next(iter(torchvision.models.get_model_weights(family)))
        side = weights.transforms().crop_size[0]
        parameters, found = cost_of(load_text("", "a.yaml", [f"model.name={family}"]).run, 1000, black(side, side))
        assert found / 2e9 == pytest.approx(weights.meta["_ops"], abs=0.000_501), family
        assert parameters == weights.meta["num_params"] - _AUXILIARY.get(family, 0), family


def test_a_budget_counts_both_and_its_limit_is_within() -> None:
    small, large = {"model.args.channels": 5}, {"model.args.channels": 6}
    parameters, operations = by_hand(5, 7, 10, 8, 8)
    for limits, fits in (
        ((), (True, True)),
        ((f"search.max_parameters={parameters}",), (True, False)),
        ((f"search.max_parameters={parameters - 1}",), (False, False)),
        ((f"search.max_flops={operations}",), (True, False)),
        ((f"search.max_parameters={10 * parameters}", f"search.max_flops={operations}"), (True, False)),
        ((f"search.max_parameters={10 * parameters}",), (True, True)),
    ):
        search = run(*limits)
        check = within(search.search, costs_of(search, 10, lambda varied: black(8, 8)))
        assert (check(small), check(large)) == fits, limits


def test_each_model_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    original = model_cost.zoo.build
    monkeypatch.setattr(model_cost.zoo, "build", lambda *what, **more: built.append(what) or original(*what, **more))
    search = run("search.max_parameters=1000")
    cost = costs_of(search, 10, lambda varied: black(varied.data.image_size, 8))
    check = within(search.search, cost)
    for rate in (0.1, 0.2, 0.3):
        for channels in (4, 5):
            check({"model.args.channels": channels, "optim.lr": rate})
    assert len(built) == 2
    check({"model.args.channels": 4, "data.image_size": 16})  # other images, other operations
    assert len(built) == 3
    within(run().search, cost)({"model.args.channels": 6})  # without a budget nothing is built
    assert len(built) == 3


def test_a_model_that_cannot_be_built_is_left_to_its_trial() -> None:
    search = run("search.max_parameters=100000", "search.max_flops=100000")
    cost = costs_of(search, 10, lambda varied: black(8, 8))
    check = within(search.search, cost)
    with pytest.raises(ModelError, match="cannot be built"):
        cost_of(run("model.args={channels: 13}"), 10, black(8, 8))
    assert check({"model.args.channels": 13})
    assert check({"model.name": "nets:picky"})  # its forward pass fails on such images
    assert cost({"model.args.channels": 13}) is None
    assert cost({"model.args.channels": 5}) == by_hand(5, 7, 10, 8, 8)


def test_generators_and_gradients_stay_as_they_are() -> None:
    before = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_num_threads()
    fused = torch.backends.mha.get_fastpath_enabled()
    cost_of(run(), 10, black(8, 8))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == before[1:]
    assert torch.backends.mha.get_fastpath_enabled() == fused
