"""Heads, initial weights and parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from raycls.models.surgery import find_head, initialise, parameter_groups


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 40, 5, groups=1), nn.BatchNorm2d(40), nn.Flatten(), nn.Linear(40 * 16, 30))


def test_the_head_is_the_last_layer_with_a_row_per_class() -> None:
    assert find_head(network(), 30) == "3"
    assert find_head(network(), 40) == "0"
    assert find_head(network(), 5) is None
    assert find_head(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 4) == "1"


def test_default_touches_nothing() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, "default")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("how", ["xavier_uniform", "kaiming"])
def test_biases_are_zero_and_norms_untouched(how: str) -> None:
    model = network()
    model[1].weight.data.fill_(3.0)  # type: ignore[union-attr]
    initialise(model, how)  # type: ignore[arg-type]
    assert not model[0].bias.any()  # type: ignore[union-attr]
    assert not model[3].bias.any()  # type: ignore[union-attr]
    assert (model[1].weight == 3).all()  # type: ignore[union-attr]


def test_xavier_uniform_has_the_bound_of_glorot() -> None:
    model = network()
    torch.manual_seed(0)
    initialise(model, "xavier_uniform")
    for layer, fan_in, fan_out in ((model[0], 3 * 25, 40 * 25), (model[3], 640, 30)):
        bound = math.sqrt(6 / (fan_in + fan_out))
        weight: torch.Tensor = layer.weight  # type: ignore[assignment]
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.99 * bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_kaiming_has_the_spread_of_he() -> None:
    model = network()
    torch.manual_seed(0)
    initialise(model, "kaiming")
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / (40 * 25)), rel=0.05)  # type: ignore[union-attr]
    assert model[3].weight.std().item() == pytest.approx(math.sqrt(2 / 640), rel=0.05)  # type: ignore[union-attr]


def test_groups_by_number_of_dimensions() -> None:
    model = network()
    (everything,) = parameter_groups(model, 0.1, "all")
    assert len(everything["params"]) == 6
    decayed, spared = parameter_groups(model, 0.1, "weights")
    assert [parameter.ndim for parameter in decayed["params"]] == [4, 2]
    assert [parameter.ndim for parameter in spared["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_shared_parameters_are_listed_once_and_empty_groups_not_at_all() -> None:
    layer = nn.Linear(3, 3, bias=False)
    (group,) = parameter_groups(nn.Sequential(layer, layer), 0.1, "weights")
    assert group["params"] == [layer.weight]
