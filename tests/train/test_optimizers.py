"""Optimizers, against torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from raycls.config.sections.optim import OptimConfig
from raycls.errors import ConfigError, ModelError
from raycls.train.optimizers.build import build_optimizer


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False)),
        (
            {"lr": 0.02, "weight_decay": 0.01, "args": {"nesterov": True, "momentum": 0.8}},
            lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.01, foreach=False),
        ),
        (
            {"name": "adam", "lr": 0.01, "weight_decay": 0.1, "args": {"betas": [0.8, 0.95], "eps": 1e-6}},
            lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, foreach=False),
        ),
        (
            {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=False),
        ),
        (
            {"name": "rmsprop", "lr": 0.01, "args": {"alpha": 0.9, "momentum": 0.5, "eps": 1e-5}},
            lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5, eps=1e-5, foreach=False),
        ),
        (
            {"name": "nadam", "lr": 0.01, "weight_decay": 0.1, "args": {"momentum_decay": 0.01}},
            lambda p: torch.optim.NAdam(
                p, lr=0.01, momentum_decay=0.01, weight_decay=0.1, decoupled_weight_decay=True, foreach=False
            ),
        ),
        (
            {"name": "nadam", "lr": 0.01, "weight_decay": 0.1, "args": {"decay": "l2"}},
            lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1, foreach=False),
        ),
        (
            {
                "name": "adafactor",
                "lr": 0.1,
                "weight_decay": 0.1,
                "args": {"beta2_decay": -0.5, "clip_threshold": 1.5, "min_scale": 0.01},
            },
            lambda p: torch.optim.Adafactor(
                p, lr=0.1, beta2_decay=-0.5, eps=(None, 0.01), d=1.5, weight_decay=0.1, foreach=False
            ),
        ),
    ],
    ids=["sgd", "nesterov", "adam", "adamw", "rmsprop", "nadam", "nadam-l2", "adafactor"],
)
def test_optimizers_are_those_of_torch(fields: dict[str, Any], reference: Any) -> None:
    model = small_model()
    other = copy.deepcopy(model)
    ours, theirs = build_optimizer(OptimConfig.model_validate(fields), model), reference(other.parameters())
    for _ in range(4):
        for parameter, mine in zip(other.parameters(), model.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape)
            mine.grad = parameter.grad.clone()
        ours.step()
        theirs.step()
    for mine, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, expected)


def test_decay_on_weights_only_spares_biases_and_norms() -> None:
    model = small_model()
    optimizer = build_optimizer(OptimConfig(name="adamw", lr=0.1, weight_decay=0.5, weight_decay_on="weights"), model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without a gradient only the decay acts: a factor of 1 - lr * decay
    for name, value in model.named_parameters():
        factor = 0.95 if name in ("0.weight", "4.weight") else 1.0
        torch.testing.assert_close(value, before[name] * factor)


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(ModelError, match="no parameters"):
        build_optimizer(OptimConfig(), model)
    head = model[4]  # type: ignore[index]
    head.bias.requires_grad = True
    groups = build_optimizer(OptimConfig(weight_decay_on="weights", weight_decay=0.1), model).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.0, 1)]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"name": "adamw", "args": {"momentum": 0.9}}, "optim.args"),
        ({"args": {"momentum": 1.0}}, "optim.args.momentum"),
        ({"args": {"lr": 1.0}}, "optim.args"),
        ({"name": "adam", "args": {"betas": [0.9]}}, "optim.args.betas"),
        ({"name": "adam", "args": {"betas": [0.9, 1.0]}}, "optim.args.betas[1]"),
        ({"name": "adam", "args": {"eps": 0}}, "optim.args.eps"),
        ({"name": "rmsprop", "args": {"alpha": "big"}}, "optim.args.alpha"),
        ({"name": "nadam", "args": {"decay": "none"}}, "optim.args.decay"),
        ({"name": "adafactor", "args": {"beta2_decay": 0}}, "optim.args.beta2_decay"),
        ({"name": "lion", "args": {"eps": 1e-8}}, "optim.args"),
        ({"name": "lamb", "args": {"adapt": "biases"}}, "optim.args.adapt"),
        ({"name": "lars", "args": {"trust": 0}}, "optim.args.trust"),
        ({"name": "muon", "args": {"iterations": 0}}, "optim.args.iterations"),
        ({"name": "muno"}, "optim.name"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_built(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_optimizer(OptimConfig.model_validate(fields), small_model())
    assert caught.value.where == where
