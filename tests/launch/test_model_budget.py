"""Parameters and operations, counted by hand, and which combinations are within a budget of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.plugins import user_module

from raycls.config.load import load_text
from raycls.config.schema import Run
from raycls.errors import ModelError
from raycls.launch import model_budget
from raycls.launch.model_budget import cost_of, within

_MODEL = """
from torch import nn


def net(num_classes, channels=5, hidden=7):
    if channels == 13:
        raise RuntimeError("thirteen")
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * channels, hidden), nn.ReLU(), nn.Linear(hidden, num_classes),
    )


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


def by_hand(channels: int, hidden: int, classes: int, height: int, width: int) -> tuple[int, int]:
    convolution = (3 * 9 + 1) * channels, 2 * height * width * channels * 3 * 9
    first, last = (4 * channels + 1) * hidden, (hidden + 1) * classes
    return convolution[0] + first + last, convolution[1] + 2 * 4 * channels * hidden + 2 * hidden * classes


@pytest.mark.parametrize(("channels", "hidden", "height", "width"), [(5, 7, 8, 8), (1, 1, 6, 10), (16, 32, 12, 12)])
def test_a_convolution_and_two_linear_layers_by_hand(channels: int, hidden: int, height: int, width: int) -> None:
    found = cost_of(run(f"model.args={{channels: {channels}, hidden: {hidden}}}"), 10, height, width)
    assert found == by_hand(channels, hidden, 10, height, width)


def test_it_is_the_published_cost_of_a_known_network() -> None:
    """torchvision says 11,689,512 parameters and 1.814 G multiply-adds for ResNet-18 at 224 pixels."""
    parameters, operations = cost_of(load_text("", "a.yaml", ["model.name=resnet18"]).run, 1000, 224, 224)
    assert parameters == 11_689_512
    assert operations / 2e9 == pytest.approx(1.814, abs=0.001)


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
        check = within(run(*limits), 10, lambda varied: (8, 8))
        assert (check(small), check(large)) == fits, limits


def test_each_model_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    original = model_budget.zoo.build
    monkeypatch.setattr(model_budget.zoo, "build", lambda *what, **more: built.append(what) or original(*what, **more))
    check = within(run("search.max_parameters=1000"), 10, lambda varied: (varied.data.image_size, 8))
    for rate in (0.1, 0.2, 0.3):
        for channels in (4, 5):
            check({"model.args.channels": channels, "optim.lr": rate})
    assert len(built) == 2
    check({"model.args.channels": 4, "data.image_size": 16})  # other images, other operations
    assert len(built) == 3
    within(run(), 10, lambda varied: (8, 8))({"model.args.channels": 4})  # without a budget nothing is built
    assert len(built) == 3


def test_a_model_that_cannot_be_built_is_left_to_its_trial() -> None:
    check = within(run("search.max_parameters=100000", "search.max_flops=100000"), 10, lambda varied: (8, 8))
    with pytest.raises(ModelError, match="cannot be built"):
        cost_of(run("model.args={channels: 13}"), 10, 8, 8)
    assert check({"model.args.channels": 13})
    assert check({"model.name": "nets:picky"})  # its forward pass fails on such images


def test_generators_and_gradients_stay_as_they_are() -> None:
    import torch

    before = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_num_threads()
    cost_of(run(), 10, 8, 8)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == before[1:]
