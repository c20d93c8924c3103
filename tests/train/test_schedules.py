"""Schedules and plateau, against torch and against hand-made tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.plugins import user_module
from torch import nn
from torch.optim import lr_scheduler

from raycls.config.sections.optim import ScheduleConfig
from raycls.errors import ConfigError
from raycls.train.schedules import Plateau, build_schedule

SPE, TOTAL = 10, 100


def schedule(name: str = "constant", warmup: str = "0st", **args: Any) -> ScheduleConfig:
    return ScheduleConfig.model_validate({"name": name, "warmup": warmup, "args": args})


def factors(config: ScheduleConfig, total: int = TOTAL) -> list[float]:
    built = build_schedule(config, steps_per_epoch=SPE, total_steps=total)
    return [built.factor(step) for step in range(total)]


def plateau_of(**args: Any) -> Plateau:
    built = build_schedule(schedule(name="plateau", **args), steps_per_epoch=SPE, total_steps=TOTAL)
    assert built.plateau is not None and {built.factor(step) for step in range(TOTAL)} == {1.0}
    return built.plateau


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


def _one_cycle(optimizer: torch.optim.Optimizer, **options: Any) -> lr_scheduler.OneCycleLR:
    return lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=TOTAL, cycle_momentum=False, **options)


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
        ({"name": "polynomial"}, lambda o: lr_scheduler.PolynomialLR(o, TOTAL)),
        ({"name": "polynomial", "power": 2.5}, lambda o: lr_scheduler.PolynomialLR(o, TOTAL, 2.5)),
        ({"name": "one_cycle"}, lambda o: _one_cycle(o, pct_start=0.3)),
        (
            {"name": "one_cycle", "peak": "2ep", "start_factor": 0.1, "min_factor": 0.001, "shape": "linear"},
            lambda o: _one_cycle(o, pct_start=0.2, div_factor=10, final_div_factor=100, anneal_strategy="linear"),
        ),
        (
            {"name": "wsd", "decay": "25st", "min_factor": 0.1},
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.ConstantLR(o, factor=1.0), lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=25)],
                [75],
            ),
        ),
        (
            {"name": "wsd", "decay": "4ep", "shape": "cosine", "min_factor": 0.1},
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.ConstantLR(o, factor=1.0), lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1)],
                [60],
            ),
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
    built = build_schedule(schedule(name="cosine", min_factor=0.2), steps_per_epoch=SPE, total_steps=TOTAL)
    assert built.factor(TOTAL + 7) == pytest.approx(0.2)


def test_periods_may_grow_by_a_fraction() -> None:
    values = factors(schedule(name="cosine_restarts", every="10st", period_factor=1.5))
    # periods of 10, 15 and 22.5 steps
    assert values[0] == values[10] == values[25] == 1.0
    assert values[9] == pytest.approx((1 + math.cos(math.pi * 0.9)) / 2)
    assert values[24] == pytest.approx((1 + math.cos(math.pi * 14 / 15)) / 2)
    assert values[47] == pytest.approx((1 + math.cos(math.pi * 22 / 22.5)) / 2)
    assert values[48] == pytest.approx((1 + math.cos(math.pi * 0.5 / 33.75)) / 2)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "polynomial", "power": 2.0, "min_factor": 0.2}, {0: 1.0, 50: 0.2 + 0.8 * 0.25, 99: 0.2 + 0.8 * 1e-4}),
        ({"name": "one_cycle"}, {0: 0.04, 29: 1.0, 64: (1 + 4e-6) / 2, 99: 4e-6}),
        ({"name": "one_cycle", "peak": "11st", "shape": "linear"}, {0: 0.04, 5: 0.52, 10: 1.0, 99: 4e-6}),
        ({"name": "wsd"}, {0: 1.0, 80: 1.0, 81: 0.95, 90: 0.5, 99: 0.05}),
        ({"name": "wsd", "shape": "sqrt", "min_factor": 0.2}, {80: 1.0, 85: 0.6, 99: 0.2 + 0.8 * (1 - 0.95**0.5)}),
        ({"name": "wsd", "warmup": "10st"}, {0: 0.1, 9: 1.0, 80: 1.0, 90: 0.5, 99: 0.05}),
        ({"name": "range_test", "min_factor": 1e-6}, {0: 1e-6, 33: 1e-4, 66: 1e-2, 99: 1.0}),
        ({"name": "polynomial", "warmup": "10st"}, {4: 0.5, 10: 1.0, 55: 0.5}),
    ],
    ids=["polynomial", "one_cycle", "one_cycle-linear", "wsd", "wsd-sqrt", "wsd-warm", "range_test", "polynomial-warm"],
)
def test_rates_at_steps_by_hand(fields: dict[str, Any], expected: dict[int, float]) -> None:
    found = factors(schedule(**fields))
    assert {step: found[step] for step in expected} == pytest.approx(expected)


def test_one_cycle_beside_a_warmup_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        factors(schedule(name="one_cycle", warmup="5st"))
    assert caught.value.where == "schedule.warmup"


def test_a_warmup_longer_than_the_run_never_divides_by_zero() -> None:
    assert factors(schedule(name="cosine", warmup="10ep"), total=100)[-1] == 1.0
    assert factors(schedule(name="cosine", warmup="20ep"), total=100)[-1] == 0.5


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"warmup": "5m"}, "schedule.warmup"),
        ({"name": "step", "every": "2h"}, "schedule.args.every"),
        ({"name": "step", "every": "0.01ep"}, "schedule.args.every"),
        ({"name": "cosine_restarts", "every": "0st"}, "schedule.args.every"),
        ({"name": "wsd", "decay": "0st"}, "schedule.args.decay"),
        ({"name": "one_cycle", "peak": "1st"}, "schedule.args.peak"),
        ({"name": "multistep", "milestones": ["1ep", "90s"]}, r"schedule.args.milestones\[1\]"),
    ],
)
def test_durations_that_are_no_steps_are_refused(fields: dict[str, Any], place: str) -> None:
    config = schedule(**fields)
    with pytest.raises(ConfigError, match=place):
        build_schedule(config, steps_per_epoch=SPE, total_steps=TOTAL)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"name": "cosine", "every": "2h"}, "schedule.args"),
        ({"name": "cosin"}, "schedule.name"),
        ({"name": "step", "gamma": 1.5}, "schedule.args.gamma"),
        ({"name": "step", "every": 30}, "schedule.args.every"),
        ({"name": "plateau", "patience": 0}, "schedule.args.patience"),
        ({"name": "cosine_restarts", "period_factor": 0.5}, "schedule.args.period_factor"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_built(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_schedule(schedule(**fields), steps_per_epoch=SPE, total_steps=TOTAL)
    assert caught.value.where == where


_OWN = """
def first(steps):
    return lambda step: {}["gone"]

def last(steps):
    return lambda step: -1.0 if step == 29 else 1.0

def nan(steps):
    return lambda step: float("nan") if step > 20 else 1.0
"""


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("first", "KeyError: 'gone' at step 0 after the warm-up"),
        ("last", "-1.0 at step 29 after the warm-up"),
        ("nan", "nan at step 21 after the warm-up"),
    ],
)
def test_a_schedule_of_ones_own_is_looked_at_over_the_whole_run(tmp_path: Path, name: str, found: str) -> None:
    with user_module(tmp_path, "schedules_of_a_user", _OWN) as module:
        with pytest.raises(ConfigError) as caught:
            build_schedule(ScheduleConfig(name=f"{module}:{name}"), steps_per_epoch=10, total_steps=30)
        assert (caught.value.where, caught.value.found) == ("schedule.name", found)


def test_a_factor_beyond_the_steps_that_were_looked_at_is_refused_when_it_is_used(tmp_path: Path) -> None:
    with user_module(tmp_path, "schedules_of_a_user", _OWN) as module:
        made = build_schedule(ScheduleConfig(name=f"{module}:nan"), steps_per_epoch=10, total_steps=20)
        assert made.factor(20) == 1.0
        with pytest.raises(ConfigError) as caught:
            made.factor(21)
    assert caught.value.found == "nan at step 21 after the warm-up"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_is_that_of_torch(mode: Any) -> None:
    values = torch.rand(60, generator=torch.Generator().manual_seed(1)).tolist()
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # torch drops the rate after more than `patience` bad values, we at the patience-th
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=2, threshold=0.0, min_lr=0.01, eps=0
    )
    plateau = plateau_of(gamma=0.5, patience=3, min_factor=0.01)
    for value in values:
        reference.step(value)
        assert plateau.update(value, mode) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateau.factor < 1


def test_plateau_resumes_where_it_was() -> None:
    whole, first, second = (plateau_of(gamma=0.1, patience=2) for _ in range(3))
    values = [0.5, 0.4, float("nan"), 0.6, 0.6, 0.2, 0.1]
    expected = [whole.update(value, "max") for value in values]
    # 0.5 is the first best; 0.4 and NaN make two bad ones; 0.6 is better; three are not
    assert expected == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    got = [first.update(value, "max") for value in values[:4]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    got += [second.update(value, "max") for value in values[4:]]
    assert got == expected
