"""Optimizers, schedules, plateau and early stopping, against torch and against hand-made tables."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from raycls.config.sections.optim import OptimConfig, ScheduleConfig
from raycls.config.sections.train import EarlyStopConfig
from raycls.errors import ConfigError, ModelError
from raycls.train.optim import EarlyStop, Plateau, build_optimizer, check_schedule, lr_factor, mode_of

SPE, TOTAL = 10, 100


def schedule(**fields: Any) -> ScheduleConfig:
    return ScheduleConfig.model_validate(fields)


def factors(config: ScheduleConfig, total: int = TOTAL) -> list[float]:
    return [lr_factor(config, step, steps_per_epoch=SPE, total_steps=total) for step in range(total)]


def torch_factors(make: Any, steps: int) -> list[float]:
    """The rates that a torch scheduler, stepped once per update, gives to an optimizer with lr 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ({"name": "step", "every": "3ep", "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 30, 0.5)),
        (
            {"name": "multistep", "milestones": ["2ep", "55st", "80%"], "gamma": 0.3},
            lambda o: lr_scheduler.MultiStepLR(o, [20, 55, 80], 0.3),
        ),
        ({"name": "exponential", "gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8 ** (1 / SPE))),
        ({"name": "cosine", "min_factor": 0.05}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.05)),
        (
            {"name": "cosine_restarts", "every": "2ep", "min_factor": 0.1},
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 20, 1, eta_min=0.1),
        ),
        (
            {"name": "cosine_restarts", "every": "1ep", "period_factor": 2.0},
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2),
        ),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_schedules_are_those_of_torch(fields: dict[str, Any], reference: Any) -> None:
    assert factors(schedule(**fields)) == pytest.approx(torch_factors(reference, TOTAL), abs=1e-12)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "constant"},
        {"name": "step", "every": "3ep"},
        {"name": "multistep", "milestones": ["2ep", "5ep"]},
        {"name": "exponential"},
        {"name": "cosine_restarts", "every": "2ep"},
        {"name": "plateau"},
    ],
    ids=lambda value: value["name"],
)
def test_warmup_delays_the_schedule(fields: dict[str, Any]) -> None:
    warm = factors(schedule(warmup="4st", **fields))
    assert warm[:4] == [0.25, 0.5, 0.75, 1.0]
    assert warm[4:] == factors(schedule(**fields))[: TOTAL - 4]


def test_cosine_after_warmup_ends_with_the_run() -> None:
    warm = factors(schedule(name="cosine", warmup="20%", min_factor=0.2))
    assert warm[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert warm[20:] == pytest.approx([0.2 + 0.4 * (1 + math.cos(math.pi * t / 80)) for t in range(80)])
    # beyond the planned end it stays down
    assert lr_factor(
        schedule(name="cosine", min_factor=0.2), TOTAL + 7, steps_per_epoch=SPE, total_steps=TOTAL
    ) == pytest.approx(0.2)


def test_periods_may_grow_by_a_fraction() -> None:
    values = factors(schedule(name="cosine_restarts", every="10st", period_factor=1.5))
    # periods of 10, 15 and 22.5 steps
    assert values[0] == values[10] == values[25] == 1.0
    assert values[9] == pytest.approx((1 + math.cos(math.pi * 0.9)) / 2)
    assert values[24] == pytest.approx((1 + math.cos(math.pi * 14 / 15)) / 2)
    assert values[47] == pytest.approx((1 + math.cos(math.pi * 22 / 22.5)) / 2)
    assert values[48] == pytest.approx((1 + math.cos(math.pi * 0.5 / 33.75)) / 2)


def test_a_warmup_longer_than_the_run_never_divides_by_zero() -> None:
    assert factors(schedule(name="cosine", warmup="10ep"), total=100)[-1] == 1.0
    assert factors(schedule(name="cosine", warmup="20ep"), total=100)[-1] == 0.5


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"warmup": "5m"}, "schedule.warmup"),
        ({"name": "step", "every": "2h"}, "schedule.every"),
        ({"name": "step", "every": "0.01ep"}, "schedule.every"),
        ({"name": "cosine_restarts", "every": "0st"}, "schedule.every"),
        ({"name": "multistep", "milestones": ["1ep", "90s"]}, r"schedule.milestones\[1\]"),
    ],
)
def test_durations_that_are_no_steps_are_refused(fields: dict[str, Any], place: str) -> None:
    config = schedule(**fields)
    with pytest.raises(ConfigError, match=place):
        check_schedule(config, steps_per_epoch=SPE, total_steps=TOTAL)
    with pytest.raises(ConfigError, match=place):
        lr_factor(config, 50, steps_per_epoch=SPE, total_steps=TOTAL)


def test_a_duration_that_is_not_used_is_not_checked() -> None:
    check_schedule(schedule(name="cosine", every="2h"), steps_per_epoch=SPE, total_steps=TOTAL)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_is_that_of_torch(mode: Any) -> None:
    values = torch.rand(60, generator=torch.Generator().manual_seed(1)).tolist()
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # torch drops the rate after more than `patience` bad values, we at the patience-th
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=2, threshold=0.0, min_lr=0.01, eps=0
    )
    plateau = Plateau.of(schedule(name="plateau", gamma=0.5, patience=3, min_factor=0.01))
    for value in values:
        reference.step(value)
        assert plateau.update(value, mode) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateau.factor < 1


def test_plateau_resumes_where_it_was() -> None:
    config = schedule(name="plateau", gamma=0.1, patience=2)
    whole, first = Plateau.of(config), Plateau.of(config)
    values = [0.5, 0.4, float("nan"), 0.6, 0.6, 0.2, 0.1]
    expected = [whole.update(value, "max") for value in values]
    # 0.5 is the first best; 0.4 and NaN make two bad ones; 0.6 is better; three are not
    assert expected == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    got = [first.update(value, "max") for value in values[:4]]
    second = Plateau.of(config)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    got += [second.update(value, "max") for value in values[4:]]
    assert got == expected


def test_early_stop_counts_evaluations_in_a_row() -> None:
    stop = EarlyStop.of(EarlyStopConfig(patience=2), "top1")
    assert [stop.update(value) for value in (0.5, 0.4, 0.6, 0.6, 0.1)] == [False, False, False, False, True]
    stop = EarlyStop.of(EarlyStopConfig(patience=2), "loss")
    assert [stop.update(value) for value in (0.5, 0.4, 0.6, 0.4, 0.1)] == [False, False, False, True, False]


def test_early_stop_counts_only_changes_of_min_delta() -> None:
    stop = EarlyStop.of(EarlyStopConfig(patience=3, min_delta=0.25), "top1")
    assert [stop.update(value) for value in (0.25, 0.375, 0.5, 0.5, 0.625)] == [False] * 5
    assert stop.best == 0.5
    assert stop.bad == 2
    assert stop.update(float("inf"))


def test_early_stop_off_never_stops_and_its_state_is_json() -> None:
    stop = EarlyStop.of(EarlyStopConfig(), "top1")
    assert not any(stop.update(0.1) for _ in range(50))
    other = EarlyStop.of(EarlyStopConfig(patience=50), "top1")
    other.load_state_dict(json.loads(json.dumps(stop.state_dict())))
    assert (other.best, other.bad) == (0.1, 49)
    assert other.update(0.1)


def test_modes() -> None:
    assert {metric: mode_of(metric) for metric in ("loss", "top1", "top5", "f1_macro")} == {
        "loss": "min", "top1": "max", "top5": "max", "f1_macro": "max",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False)),
        (
            {"lr": 0.02, "nesterov": True, "momentum": 0.8, "weight_decay": 0.01},
            lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.01, foreach=False),
        ),
        (
            {"name": "adam", "lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1},
            lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, foreach=False),
        ),
        (
            {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=False),
        ),
        (
            {"name": "rmsprop", "lr": 0.01, "alpha": 0.9, "momentum": 0.5, "eps": 1e-5},
            lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5, eps=1e-5, foreach=False),
        ),
    ],
    ids=["sgd", "nesterov", "adam", "adamw", "rmsprop"],
)
def test_optimizers_are_those_of_torch(fields: dict[str, Any], reference: Any) -> None:
    model = small_model()
    other = copy.deepcopy(model)
    ours, theirs = build_optimizer(OptimConfig.model_validate(fields), model), reference(other.parameters())
    images = torch.randn(8, 3, 8, 8)
    for _ in range(4):
        for net, optimizer in ((model, ours), (other, theirs)):
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()
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
