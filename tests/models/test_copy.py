"""Which networks a moving average can be kept of: those whose deep copy is whole and stands alone."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raycls.errors import ModelError
from raycls.models.networks.tiny import tiny_cnn
from raycls.models.zoo import check_copy


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


class Keeps(Net):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what


class ItsOwnCopy(Net):
    def __deepcopy__(self, memo: dict[int, Any]) -> ItsOwnCopy:
        return self


class SharesItsBody(Net):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharesItsBody:
        other = SharesItsBody()
        other.head, other.body = copy.deepcopy(self.head, memo), self.body
        return other


class Closure(Net):
    def __init__(self) -> None:
        super().__init__()
        self.pooled = lambda images: self.body(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pooled(images))


class Computed(Net):
    """A weight that is the result of an operation, as torch.nn.utils.weight_norm leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled = self.head.weight * 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Keeps(threading.Lock()), "cannot pickle"),
        (Keeps(number for number in range(3)), "cannot pickle"),
        (Computed(), "graph leaves"),
        (ItsOwnCopy(), "body.weight"),
        (SharesItsBody(), "body.weight"),
        (Closure(), "body.weight, body.bias"),
    ],
    ids=["lock", "generator", "computed", "itself", "shared", "closure"],
)
def test_a_network_without_a_copy_of_its_own(model: nn.Module, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_copy(model, "nets:net", (torch.zeros(1, 3, 8, 8),))
    error = caught.value
    assert error.where == "optim.ema, model.name"
    assert words in (error.found or "")
    assert "nets:net" in (error.found or "")
    assert (error.fix or "").startswith("optim.ema=off")


def tied() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    model[1].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


@pytest.mark.parametrize("make", [Net, lambda: Keeps([1, {}]), lambda: tiny_cnn(2, dropout=0.5), tied, frozen])
def test_one_with_a_copy(make: Any) -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_copy(model, "net", (torch.zeros(1, 3, 8, 8),))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
