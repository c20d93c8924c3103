"""The state that survives: taken apart and put together, it goes on exactly as the original would."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from raycls.run.snapshot import snapshot
from raycls.train.optim import EarlyStop
from raycls.train.reasons import Reason
from raycls.train.schedules import Plateau
from raycls.train.state import Meter, TrainState, ema_share, moving_average

_OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
}


def _state(name: str, ema: float | str = 0.5, scaled: bool = False) -> TrainState:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))  # no gradient, so nothing in the optimizer
    return TrainState(
        model=model,
        optimizer=_OPTIMIZERS[name](model.parameters()),
        ema=moving_average(model, ema, "ramp"),
        scaler=torch.amp.GradScaler("cpu", enabled=scaled),  # type: ignore[attr-defined]
        plateau=Plateau(gamma=0.5, patience=1),
        early_stop=EarlyStop(patience=4, min_delta=0.0, mode="max"),
    )


def _steps(state: TrainState, count: int) -> None:
    for _ in range(count):
        torch.manual_seed(100 + state.step)
        images, labels = torch.randn(6, 3, 4, 4), torch.randint(0, 3, (6,))
        state.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(state.model(images), labels)
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.meter.add({"loss": loss.item(), "top1": 1.0}, 6)
        state.plateau.update(loss.item(), "min")
        state.early_stop.update(-loss.item())
        state.step += 1


def _bits(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return str(tree.dtype), tuple(tree.shape), tree.numpy().tobytes()
    if isinstance(tree, dict):
        return {key: _bits(value) for key, value in tree.items()}
    return [_bits(item) for item in tree] if isinstance(tree, list | tuple) else tree


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", list(_OPTIMIZERS))
def test_a_loaded_state_goes_on_alike(name: str, scaled: bool) -> None:
    whole = _state(name, scaled=scaled)
    _steps(whole, 5)
    first = _state(name, scaled=scaled)
    _steps(first, 3)
    first.best, first.last, first.elapsed = {"step": 2, "value": 0.5}, {"loss": 1.0}, 12.5
    saved = snapshot(3, first.trees())
    second = _state(name, scaled=scaled)
    _steps(second, 1)  # it has a past of its own, which must go
    second.load(saved.trees)
    assert (second.step, second.best, second.last, second.elapsed) == (3, first.best, first.last, 12.5)
    assert _bits(second.trees()) == _bits(first.trees())
    _steps(second, 2)
    whole.best, whole.last, whole.elapsed = first.best, first.last, first.elapsed
    assert _bits(second.trees()) == _bits(whole.trees())


def test_snapshot_does_not_follow_the_training() -> None:
    state = _state("sgd")
    _steps(state, 2)
    saved = snapshot(2, state.trees())
    before = copy.deepcopy(_bits(saved.trees))
    _steps(state, 1)
    assert _bits(saved.trees) == before


def test_an_ended_run_stays_ended() -> None:
    state, other = _state("sgd"), _state("sgd")
    state.finished, state.skipped_in_a_row = "early", 7
    other.load(snapshot(0, state.trees()).trees)
    assert (other.finished, other.skipped_in_a_row) == ("early", 7)


@pytest.mark.parametrize(
    ("train", "finite"),
    [
        ({"skipped_in_a_row": 0}, True),
        ({"skipped_in_a_row": 2}, False),  # a checkpoint of before there was more to say
        ({"skipped_in_a_row": 0, "finite": False}, False),
    ],
)
def test_a_checkpoint_says_whether_the_newest_step_had_a_finite_gradient(train: dict[str, Any], finite: bool) -> None:
    state, again = _state("sgd"), _state("sgd")
    trees = state.trees()
    state.load({**trees, "train": {**trees["train"], **train}})
    again.load(snapshot(0, state.trees()).trees)
    assert (state.finite, again.finite) == (finite, finite)


def test_an_evaluation_decides_best_learning_rate_and_end() -> None:
    state, seen = _state("sgd"), []  # the schedule's patience is 1, its gamma 0.5
    state.early_stop = EarlyStop(patience=2, min_delta=0.0, mode="max")
    # as good is no better, and an accuracy beside a loss that is not finite is no result
    for step, top1, loss in ((10, 0.5, 2.0), (20, 0.75, 3.0), (30, 0.75, 1.0), (40, 1.0, math.nan)):
        state.step = step
        improved = state.judge({"epoch": step / 10, "split": "val"}, {"loss": loss, "top1": top1}, "top1", "max")
        seen.append((improved, state.best["step"], state.plateau.factor, state.finished))
    assert seen == [
        (True, 10, 1.0, Reason.NONE),
        (True, 20, 1.0, Reason.NONE),
        (False, 20, 0.5, Reason.NONE),
        (False, 20, 0.25, Reason.EARLY),
    ]
    best = {"step": 20, "epoch": 2.0, "split": "val", "loss": 3.0, "top1": 0.75, "metric": "top1", "value": 0.75}
    assert state.best == best
    assert list(state.best) == list(best)  # as the files have it
    assert state.last.items() >= {"step": 40, "epoch": 4.0, "split": "val", "top1": 1.0}.items()


def test_an_evaluation_without_a_plateau_where_less_is_better() -> None:
    state = _state("sgd")
    state.plateau, state.early_stop = None, EarlyStop("off", 0.0, "min")
    assert [state.judge({}, {"loss": loss}, "loss", "min") for loss in (2.0, 1.0, 1.5)] == [True, True, False]
    assert (state.best["value"], state.last, state.finished) == (1.0, {"step": 0, "loss": 1.5}, Reason.NONE)


def test_moving_average_is_the_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("seen", torch.tensor([0.0]))
    average = moving_average(model, 0.75, "off")
    assert average is not None
    for value in (8.0, 4.0, 0.0):
        with torch.no_grad():
            model.weight.fill_(value)
            model.seen.fill_(value)
        average.update_parameters(model)
    # the first update copies 8; then 0.75 * 8 + 0.25 * 4 = 7; then 0.75 * 7 = 5.25
    assert average.module.weight.item() == 5.25
    assert average.module.seen.item() == 5.25


def test_the_decay_of_a_moving_average_rises_with_its_updates() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, 0.25, "ramp")
    assert average is not None
    for value in (11.0, 0.0, 48.0, 0.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
    # 11; then 2/11 of it, 2; then a quarter, since 3/12 is 0.25: 0.5 + 36 = 36.5; then 0.25 and not 4/13
    assert average.module.weight.item() == pytest.approx(9.125, rel=1e-6)


@pytest.mark.parametrize("warmup", ["ramp", "off"])
@pytest.mark.parametrize("updates", [1, 2, 3, 60])
@pytest.mark.parametrize("decay", [0.25, 0.9999])
def test_what_a_moving_average_still_holds_of_its_beginning(decay: float, updates: int, warmup: str) -> None:
    """An average of a 1 and then zeros is the share of what it began with."""
    model = nn.Linear(1, 1, bias=False).double()
    average = moving_average(model, decay, warmup)
    assert average is not None
    for update in range(updates):
        with torch.no_grad():
            model.weight.fill_(float(update == 0))
        average.update_parameters(model)
    held = average.module.weight.item()
    assert held == (1.0 if updates == 1 else pytest.approx(ema_share(decay, warmup, updates), rel=1e-9))
    by_hand = {(2, "ramp"): 2 / 11, (3, "ramp"): 2 / 11 * 3 / 12, (60, "off"): 0.9999**59}
    if decay == 0.9999 and (updates, warmup) in by_hand:
        assert held == pytest.approx(by_hand[updates, warmup], rel=1e-12)


def test_what_is_evaluated() -> None:
    with_average, without = _state("sgd"), _state("sgd", ema="off")
    assert with_average.ema is not None
    assert with_average.evaluated_model is with_average.ema.module
    assert without.evaluated_model is without.model
    assert "ema" not in without.trees()


def test_meter_is_a_mean_over_samples() -> None:
    meter = Meter()
    meter.add({"loss": 6.0, "top1": 3.0}, 4)
    meter.add({"loss": 1.0, "top1": 0.0}, 1)  # a short batch weighs what it is
    for loss in (float("nan"), float("inf")):
        meter.add({"loss": loss, "top1": 4.0}, 0)
    assert meter.take() == {"loss": 1.4, "top1": 0.6, "skipped_steps": 2}
    assert meter.take() == {}  # no sample, no mean
    meter.add({"loss": float("nan"), "top1": 1.0}, 0)
    assert meter.take() == {"loss": 0.0, "top1": 0.0, "skipped_steps": 1}


def test_a_meter_of_an_earlier_version_goes_on() -> None:
    meter = Meter.of({"loss": 6.0, "correct": 3, "count": 4, "skipped": 1})
    meter.add({"loss": 1.0, "top1": 0.0}, 1)
    assert meter.take() == {"loss": 1.4, "top1": 0.6, "skipped_steps": 1}
    assert Meter.of({"loss": 0.0, "correct": 0, "count": 0, "skipped": 0}) == Meter()
    assert Meter.of(vars(meter)) == meter


def test_counters_have_no_mean() -> None:
    model = torch.nn.BatchNorm2d(2)
    average = moving_average(model, 0.75, "off")
    assert average is not None
    for _ in range(5):
        model(torch.randn(4, 2, 3, 3))
        average.update_parameters(model)
    assert average.module.num_batches_tracked.item() == model.num_batches_tracked.item() == 5
