"""Lion, LAMB, LARS and Muon: their first two steps by hand, as their papers write them, and what survives a resume."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raycls.config.sections.optim import OptimConfig
from raycls.models.pruned import MASK
from raycls.run.snapshot import snapshot
from raycls.train.optimizers.build import build_optimizer
from raycls.train.optimizers.muon import orthogonal

_LR, _DECAY = 0.1, 0.5
_GRADIENTS = (np.array([[1.0, -2.0], [2.0, 4.0]]), np.array([[-3.0, 1.0], [0.0, 1.0]]))
_WEIGHT = np.array([[3.0, 0.0], [0.0, 4.0]])
Step = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(weight, gradient, number of the step from 1 on) to the new weight."""


class _Two(nn.Module):
    """A weight between two others: Muon leaves the last one, the head, to AdamW."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
        self.head = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))


def _lion() -> Step:
    """Algorithm 2 of Chen et al. 2023."""
    momentum = np.zeros(())

    def step(weight: np.ndarray, gradient: np.ndarray, number: int) -> np.ndarray:
        nonlocal momentum
        update = np.sign(0.9 * momentum + 0.1 * gradient)
        momentum = 0.99 * momentum + 0.01 * gradient
        return weight - _LR * (update + _DECAY * weight)

    return step


def _lamb(adapt: bool = True) -> Step:
    """Algorithm 2 of You et al. 2020."""
    mean, square = np.zeros(()), np.zeros(())

    def step(weight: np.ndarray, gradient: np.ndarray, number: int) -> np.ndarray:
        nonlocal mean, square
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        ratio = (mean / (1 - 0.9**number)) / (np.sqrt(square / (1 - 0.999**number)) + 1e-6)
        update = ratio + _DECAY * weight
        length = np.sqrt((weight**2).sum()) / np.sqrt((update**2).sum()) if adapt else 1.0
        return weight - _LR * length * update

    return step


def _lars(adapt: bool = True) -> Step:
    """Equation 6 and algorithm 1 of You et al. 2017."""
    velocity = np.zeros(())

    def step(weight: np.ndarray, gradient: np.ndarray, number: int) -> np.ndarray:
        nonlocal velocity
        norm, slope = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
        local = 0.001 * norm / (slope + _DECAY * norm) if adapt else 1.0
        velocity = 0.9 * velocity + _LR * local * (gradient + _DECAY * weight)
        return weight - velocity

    return step


def _muon(scale: Callable[[int, int], float], nesterov: bool) -> Step:
    """The singular values of the momentum, each through five times the polynomial; no matrix is iterated."""
    momentum = np.zeros(())

    def step(weight: np.ndarray, gradient: np.ndarray, number: int) -> np.ndarray:
        nonlocal momentum
        momentum = 0.95 * momentum + 0.05 * gradient
        used = 0.05 * gradient + 0.95 * momentum if nesterov else momentum
        matrix = used.reshape(len(used), -1)
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        values = values / np.sqrt((values**2).sum())
        for _ in range(5):
            values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
        update = ((left * values) @ right).reshape(weight.shape)
        return weight * (1 - _LR * _DECAY) - _LR * scale(*matrix.shape) * update

    return step


def _adamw() -> Step:
    """Algorithm 2 of Loshchilov and Hutter 2019."""
    mean, square = np.zeros(()), np.zeros(())

    def step(weight: np.ndarray, gradient: np.ndarray, number: int) -> np.ndarray:
        nonlocal mean, square
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        update = (mean / (1 - 0.9**number)) / (np.sqrt(square / (1 - 0.999**number)) + 1e-8)
        return weight * (1 - _LR * _DECAY) - _LR * update

    return step


def _as_adamw(rows: int, columns: int) -> float:
    return 0.2 * math.sqrt(max(rows, columns))


def _as_jordan(rows: int, columns: int) -> float:
    return math.sqrt(max(1, rows / columns))


@pytest.mark.parametrize(
    ("fields", "weight", "bias", "head"),
    [
        ({"name": "lion"}, _lion, _lion, _lion),
        ({"name": "lamb"}, _lamb, lambda: _lamb(False), _lamb),
        ({"name": "lamb", "args": {"adapt": "all"}}, _lamb, _lamb, _lamb),
        ({"name": "lars"}, _lars, lambda: _lars(False), _lars),
        ({"name": "lars", "args": {"adapt": "all"}}, _lars, _lars, _lars),
        ({"name": "muon"}, lambda: _muon(_as_adamw, True), _adamw, _adamw),
        (
            {"name": "muon", "args": {"scale": "original", "nesterov": False}},
            lambda: _muon(_as_jordan, False),
            _adamw,
            _adamw,
        ),
    ],
    ids=["lion", "lamb", "lamb-all", "lars", "lars-all", "muon", "muon-original"],
)
def test_two_steps_by_hand(
    fields: dict[str, Any], weight: Callable[[], Step], bias: Callable[[], Step], head: Callable[[], Step]
) -> None:
    model = _Two(_WEIGHT)
    optimizer = build_optimizer(OptimConfig.model_validate({"lr": _LR, "weight_decay": _DECAY, **fields}), model)
    steps = (weight(), bias(), head())
    expected = [parameter.detach().numpy().copy() for parameter in model.parameters()]
    for number, gradient in enumerate(_GRADIENTS, 1):
        given = (gradient, gradient[0], -gradient)
        for parameter, value in zip(model.parameters(), given, strict=True):
            parameter.grad = torch.tensor(value)
        optimizer.step()
        expected = [step(at, value, number) for step, at, value in zip(steps, expected, given, strict=True)]
        for parameter, wanted in zip(model.parameters(), expected, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=1e-5)


def test_muon_takes_convolutions_as_matrices_and_leaves_what_maps_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2))
    model.register_parameter("position", nn.Parameter(torch.ones(1, 5, 4)))
    for convolutions, expected in (("muon", {"0.weight", "3.weight"}), ("adamw", {"3.weight"})):
        optimizer = build_optimizer(OptimConfig(name="muon", args={"convolutions": convolutions}), model)
        chosen = {id(p) for group in optimizer.param_groups if group["kind"] == "muon" for p in group["params"]}
        assert {name for name, parameter in model.named_parameters() if id(parameter) in chosen} == expected
        every = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        assert sorted(every) == sorted(map(id, model.parameters()))


def test_muon_on_a_matrix_is_that_of_torch() -> None:
    """Which iterates in bfloat16: equal to three digits or so."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16, bias=False), nn.Linear(16, 3, bias=False))
    other = nn.Parameter(model[0].weight.detach().clone())
    ours = build_optimizer(OptimConfig(name="muon", lr=0.1, weight_decay=0.2), model)
    theirs = torch.optim.Muon([other], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        other.grad = torch.randn(16, 6)
        model[0].weight.grad = other.grad.clone()
        model[1].weight.grad = torch.randn(3, 16)
        ours.step()
        theirs.step()
    torch.testing.assert_close(model[0].weight, other, rtol=0.02, atol=0.004)
    values = torch.linalg.svdvals(orthogonal(torch.randn(5, 20), 5))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


_ALL = ("sgd", "adam", "adamw", "nadam", "adafactor", "rmsprop", "lion", "lamb", "lars", "muon")


def _model() -> nn.Sequential:
    torch.manual_seed(1)
    made = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 36, 8), nn.Linear(8, 3))
    return made.to(memory_format=torch.channels_last)


def _learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", _ALL)
def test_masked_weights_stay_zero(name: str) -> None:
    model = _model()
    for layer in (model[0], model[3]):
        mask = torch.rand_like(layer.weight) > 0.5
        layer.register_buffer("weight" + MASK, mask)
        with torch.no_grad():
            layer.weight.masked_fill_(~mask, 0)
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(OptimConfig(name=name, lr=0.01, weight_decay=0.1), model)
    _learn(model, optimizer, range(3))
    for layer in (model[0], model[3]):
        assert not layer.weight[~layer.get_buffer("weight" + MASK)].any()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {key for key, _ in model.named_parameters()}


@pytest.mark.parametrize("name", _ALL)
def test_a_parameter_without_a_gradient_stays(name: str) -> None:
    model = _model()
    optimizer = build_optimizer(OptimConfig(name=name, lr=0.01, weight_decay=0.1), model)
    model[4].weight.requires_grad_(False)
    before = model[4].weight.clone()
    _learn(model, optimizer, range(2))
    assert torch.equal(model[4].weight, before)
    assert snapshot(2, {"optimizer": optimizer.state_dict()}).step == 2  # a checkpoint can hold it
