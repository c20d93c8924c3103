"""Synchronised batch norm on several ranks against torch's own batch norm over one large batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from harness.ranks import run_ranks
from torch import Tensor, nn

from raycls.errors import ConfigError
from raycls.train.forward.batch_norm import refuse_without_norms, synchronised
from raycls.train.forward.recompute import recomputed

_ROWS = (5, 4, 2)
"""Rows of the micro-batches: of different sizes, as a batch that does not divide evenly has them."""


class _Activated(nn.BatchNorm2d):
    """A norm with a forward pass of its own, as other libraries have."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


def _net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "rows":
        return nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.Tanh(), nn.BatchNorm1d(8, affine=False)
        )
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Conv2d(4, 4, 3, bias=False), _Activated(4)
    ).to(memory_format=torch.channels_last)


def _input(kind: str) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(11, 6) if kind == "rows" else torch.randn(11, 2, 7, 7) * 3 + 5


def _step(model: nn.Module, values: Tensor) -> dict[str, Tensor]:
    """Output, the gradient of the input and of each parameter, and the buffers, after one forward and backward pass."""
    values = values.clone().requires_grad_()
    output = model.train()(values)
    (output.float() * torch.linspace(-1, 2, output[0].numel()).view(output[0].shape)).pow(2).sum().backward()
    found = {"output": output.detach(), "input": values.grad}
    found |= {f"gradient of {name}": value.grad for name, value in model.named_parameters()}
    return {name: value for name, value in (found | dict(model.named_buffers())).items() if value is not None}


def _rank(rank: int, world: int, kind: str, half: bool, again: bool) -> dict[str, np.ndarray]:
    model, own = _net(kind), _input(kind).split(_ROWS)[rank]
    if not half:  # what is compared to the twelfth digit
        model, own = model.double(), own.double()
    average = copy.deepcopy(model)
    with synchronised(model, world), recomputed(model, (("0", "1", "2"),) if again else ()):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = _step(model, own)
        model.eval()(own if rank else own[:1])  # an evaluation, of which ranks have different parts, waits for nobody
    average.train()(own)  # nor does a copy
    assert not any("forward" in vars(module) for module in model.modules())
    assert found["output"].dtype == (torch.bfloat16 if half else torch.float64)
    return {name: value.double().numpy() for name, value in found.items()}


def _whole(ranks: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """What is of rows one after another, gradients added up, and buffers, which are the same on all ranks."""
    found = [{name: torch.from_numpy(value) for name, value in rank.items()} for rank in ranks]
    joined: dict[str, Tensor] = {}
    for name in found[0]:
        each = [one[name] for one in found]
        if name in ("output", "input"):
            joined[name] = torch.cat(each)
        elif name.startswith("gradient"):
            joined[name] = torch.stack(each).sum(0)
        else:
            assert all(torch.equal(one, each[0]) for one in each)
            joined[name] = each[0]
    return joined


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "maps"])
def test_it_is_batch_norm_over_one_large_batch(kind: str) -> None:
    wanted = _step(_net(kind).double(), _input(kind).double())
    found = run_ranks(3, _rank, kind, False, False)
    whole = _whole(found)
    assert set(whole) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(whole[name], value.double(), rtol=1e-9, atol=1e-11, msg=lambda m, n=name: n + m)
    # in any other run too, also where a part of the network runs again in the backward pass
    for one, other in zip(found, run_ranks(3, _rank, kind, False, True), strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_it_takes_what_autocast_hands_it() -> None:
    wanted = _step(_net("maps"), _input("maps"))
    whole = _whole(run_ranks(3, _rank, "maps", True, False))
    torch.testing.assert_close(whole["1.running_var"], wanted["1.running_var"].double(), rtol=0.02, atol=0.0)


def test_one_rank_computes_as_before() -> None:
    wanted: dict[str, Any] = _step(_net("maps"), _input("maps"))
    model = _net("maps")
    with synchronised(model, 1):
        found = _step(model, _input("maps"))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_network_without_norms_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no batch norm") as raised:
        refuse_without_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)))
    assert (raised.value.where, raised.value.fix) == (
        "train.batch_norm, model.name",
        "set train.batch_norm=micro_batch",
    )
