"""The loop against a bare PyTorch loop on the same samples, and what it does when a gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness.jobs import curve, make_job, train, write_arrays
from harness.tasks import setting
from safetensors.torch import load_file
from torch import nn

from raycls.config.sections.model import ModelConfig
from raycls.config.sections.optim import OptimConfig
from raycls.data.order import Order
from raycls.data.slices import Position, Slice
from raycls.data.stream import Stream
from raycls.errors import DataError, TrainError
from raycls.models import zoo
from raycls.tasks.classification import Classification, Labelled
from raycls.train import loop
from raycls.train.optim import EarlyStop
from raycls.train.optimizers.clipping import build_clip
from raycls.train.plan import Plan
from raycls.train.ranks import Ranks
from raycls.train.reasons import Reason
from raycls.train.recovery.non_finite import NonFinite
from raycls.train.reduction import Exact, Fast
from raycls.train.schedules import Plateau
from raycls.train.state import TrainState

_ROWS, _BATCH, _STEPS = 70, 32, 9  # three epochs of 32, 32 and 6 rows


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_losses_are_those_of_a_bare_loop(reduction: str, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=_ROWS, val=8)
    options = (
        f"data.batch_size={_BATCH}",
        "train.duration=3ep",
        f"train.reduction={reduction}",
        "augment.train=[]",
        "model.name=tiny_cnn",
        "model.args={width: 8}",
        "run.seed=4",
        "optim={name: sgd, lr: 0.05, args: {momentum: 0.9}, weight_decay: 0.01, clip_norm: 0.7, ema: 0.8}",
        "schedule={name: cosine, warmup: 3st}",
        "loss.args.label_smoothing=0.1",
        "track.log_every=1st",
        "evaluate.every=off",
    )
    train(make_job(tmp_path / "run", data, *options))
    found = curve(tmp_path / "run")
    losses, rates, norms, average = _bare_loop(data)
    assert [record["step"] for record in found] == list(range(1, _STEPS + 1))
    assert [record["loss"] for record in found] == pytest.approx(losses, rel=1e-6)
    assert [record["lr"] for record in found] == pytest.approx(rates, rel=1e-12)
    assert [record["grad_norm"] for record in found] == pytest.approx(norms, rel=1e-5)
    assert max(norms) > 0.7 > min(norms), "the gradient was clipped always or never"
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert weights.keys() == average.keys()
    for name, value in weights.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name], rtol=1e-4, atol=1e-6)


def _bare_loop(data: Path) -> tuple[list[float], list[float], list[float], dict[str, torch.Tensor]]:
    """The same recipe as one reads it in a tutorial: losses, learning rates, gradient norms, averaged weights."""
    arrays = np.load(data)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(arrays["train_images"]).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(arrays["train_labels"])
    model = zoo.build(ModelConfig(name="tiny_cnn", args={"width": 8}), 4, 4).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    average: dict[str, torch.Tensor] = {}
    losses, rates, norms = [], [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    order = Order(4, _ROWS, _BATCH, 1)
    model.train()
    for step in range(_STEPS):
        warm = (step + 1) / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / (_STEPS - 3))) / 2
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * warm
        ids = torch.from_numpy(order.batch(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[ids]), labels[ids], label_smoothing=0.1)
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.7)))
        optimizer.step()
        losses.append(loss.item())
        rates.append(0.05 * warm)
        decay = min(0.8, (1 + step) / (10 + step)) if step else 0.0
        for name, value in model.state_dict().items():
            average[name] = decay * average.get(name, value) + (1 - decay) * value
    torch.set_num_threads(threads)
    return losses, rates, norms, average


def test_micro_batches_do_not_change_the_gradient(tmp_path: Path) -> None:
    """A network without batch norm and dropout learns alike from one part and from five."""
    data = write_arrays(tmp_path / "data.npz", train=_ROWS, val=8)
    options = (
        "data.batch_size=32",
        "train.duration=2ep",
        "model.name=squeezenet1_1",
        "model.args={dropout: 0.0}",
        "data.image_size=24",
        "augment.train=[{resize: {size: [24, 24]}}]",
        "augment.eval=[{resize: {size: [24, 24]}}]",
        "track.log_every=1st",
        "evaluate.every=off",
        "optim.lr=0.01",
    )
    for micro in (1, 5):
        train(make_job(tmp_path / f"parts-{micro}", data, *options, f"train.micro_batches={micro}"))
    losses = [[record["loss"] for record in curve(tmp_path / f"parts-{micro}")] for micro in (1, 5)]
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != losses[1], "the parts were not computed one by one"


# --- one page, its world handed in: no config, no run folder, no data on disk -------------------------------


class _World:
    """Pieces for `loop.train`: a linear model on random images, and what the loop told its callers."""

    def __init__(self, steps: int = 6, micro: int = 2, scaled: bool = False, **plan: Any) -> None:
        self.plan = Plan(
            seed=0,
            samples=8,
            classes=2,
            batch_size=4,
            micro_batches=micro,
            steps_per_epoch=2,
            total_steps=steps,
            log_every=1,
            evaluate_every=plan.pop("evaluate_every", 0),
            evaluate_rows=0,
            evaluate_batch=1,
            checkpoint_every=plan.pop("checkpoint_every", 0),
            checkpoint_seconds=0.0,
            budget_seconds=0.0,
            left_out=plan.pop("left_out", ()),
        )
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
        self.state = TrainState(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            ema=None,
            scaler=torch.amp.GradScaler("cpu", enabled=scaled),  # type: ignore[attr-defined]
            plateau=Plateau(0.1, 3),
            early_stop=EarlyStop("off", 0.0, "max"),
        )
        self.task: Classification = _Poisoned()
        self.ranks = Ranks()
        self.events: list[tuple[str, int]] = []
        self.skipped: list[tuple[float, ...]] = []
        self.evaluate: Callable[[TrainState], bool] = lambda state: False
        self.error_at = -1

    def run(self, *, skip: bool = False, fast: bool = False) -> str:
        order = self.plan.order
        common = self.state.model, order, 0, 1, torch.device("cpu"), 2
        reduction = Fast(*common, (torch.zeros(1, 3, 2, 2),)) if fast else Exact(*common)

        def note(kind: str) -> Callable[..., None]:
            return lambda state, *rest: self.events.append((kind, state.step))

        def evaluate(state: TrainState) -> bool:
            self.events.append(("evaluate", state.step))
            return self.evaluate(state)

        return loop.train(
            self.state,
            self.plan,
            self.task,
            Stream(self._slices(), self._positions()),
            self.ranks,
            reduction,
            precision=nullcontext(),
            lr=lambda step: 0.1,
            clip=build_clip(OptimConfig(), self.state.model),
            ready=lambda step: self.state.model.train(),
            non_finite=NonFinite((lambda *facts: self.skipped.append(facts)) if skip else None),
            seen=lambda step, batch, parts: self.events.append(("seen", step)),
            log=note("log"),
            evaluate=evaluate,
            save=note("save"),
        )

    def _positions(self):
        return (Position("train", step // 2, step, 0, 0) for step in range(self.state.step, 1000))

    def _slices(self):
        pixels = np.random.RandomState(1).randint(0, 256, (8, 2, 2, 3), dtype=np.uint8)
        for position in self._positions():
            ids = self.plan.order.batch(position.step)
            error = DataError("a broken picture") if position.step == self.error_at else None
            yield Slice(position, ids, {"image": pixels[ids], "label": ids % 2}, error)

    def steps_of(self, kind: str) -> list[int]:
        return [step for name, step in self.events if name == kind]


class _Poisoned(Classification):
    """A task whose loss is infinite in some steps."""

    def __init__(self, steps: frozenset[int] = frozenset(), poison: float = math.inf) -> None:
        super().__init__(setting(mean=(0.5,) * 3, std=(0.5,) * 3, channels_last=False))
        self.steps, self.poison, self.calls = steps, poison, 0

    def loss(self, model: nn.Module, batch: Labelled) -> dict[str, torch.Tensor]:
        sums = super().loss(model, batch)
        step, self.calls = self.calls // 2, self.calls + 1  # two micro-batches
        return {**sums, "loss": sums["loss"] * self.poison} if step in self.steps else sums


def _bits(state: TrainState) -> list[bytes]:
    return [value.numpy().tobytes() for value in state.model.state_dict().values()]


def test_what_is_called_and_when() -> None:
    world = _World(steps=7, evaluate_every=3, checkpoint_every=5)
    world.evaluate = lambda state: state.step == 3  # the best one
    assert world.run() == "done"
    assert world.steps_of("seen") == list(range(7))
    assert world.steps_of("log") == list(range(1, 8))
    assert world.steps_of("evaluate") == [3, 6, 7]
    assert world.steps_of("save") == [3, 5, 7]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("poison", [math.inf, math.nan])
def test_not_finite_is_an_error_that_names_the_step(fast: bool, poison: float) -> None:
    world = _World()
    world.task = _Poisoned(frozenset({2}), poison)
    with pytest.raises(TrainError, match="step 3 has a gradient that is not finite") as caught:
        world.run(fast=fast)
    assert str(world.plan.order.batch(2).tolist()[:4])[1:-1] in str(caught.value)
    assert "epoch 1" in str(caught.value)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_batch_without_samples_is_a_step_without_an_update(fast: bool, scaled: bool) -> None:
    gone = tuple(sorted(Order(0, 8, 4, 2).batch(2).tolist()))
    states = []
    for steps in (2, 3):
        world = _World(steps=steps, scaled=scaled)
        assert world.run(fast=fast) == "done"
        states.append(world.state)
    emptied = _World(steps=3, scaled=scaled, left_out=gone)
    emptied.state = states[0]
    emptied.events.clear()
    before = _bits(emptied.state)
    assert emptied.run(fast=fast) == "done"
    assert (_bits(emptied.state) == before, _bits(states[1]) == before) == (True, False)
    assert emptied.events == [("seen", 2), ("log", 3), ("save", 3)]


@pytest.mark.parametrize("micro", [1, 2])
def test_a_batch_with_a_gap_has_the_mean_gradient_of_the_others(micro: int) -> None:
    ids = Order(0, 8, 4, 1).batch(0)
    world = _World(steps=1, micro=micro, left_out=(int(ids[1]),))
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))  # without statistics, which each part of a batch has alone
    world.state.model = model
    world.state.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight, bias = (value.detach().clone().requires_grad_() for value in model[1].parameters())
    kept = np.delete(ids, 1)
    pixels = np.random.RandomState(1).randint(0, 256, (8, 2, 2, 3), dtype=np.uint8)[kept]
    images = world.task.batch({"image": pixels, "label": kept}, train=True).images.flatten(1)
    F.cross_entropy(F.linear(images, weight, bias), torch.from_numpy(kept % 2)).backward()
    assert world.run() == "done"
    for found, start in zip(model[1].parameters(), (weight, bias), strict=True):
        assert start.grad is not None
        torch.testing.assert_close(found.detach(), start.detach() - 0.1 * start.grad)


@pytest.mark.parametrize("fast", [False, True])
def test_a_skipped_step_changes_nothing(fast: bool) -> None:
    """Weights, momentum and batch-norm statistics stay; the meter counts it; the next step is trained."""
    poisoned, clean = _World(steps=3), _World(steps=2)
    poisoned.task = _Poisoned(frozenset({2}))
    assert poisoned.run(skip=True, fast=fast) == "done"
    assert clean.run(fast=fast) == "done"
    assert _bits(poisoned.state) == _bits(clean.state)
    assert (poisoned.state.meter.skipped, poisoned.state.skipped_in_a_row) == (1, 1)
    assert [step for step, _, _ in poisoned.skipped] == [2]
    assert poisoned.state.meter.count == 8
    again = _World(steps=4)
    again.task = _Poisoned(frozenset({2}))
    again.run(skip=True, fast=fast)
    assert _bits(again.state) != _bits(clean.state)
    assert again.state.skipped_in_a_row == 0


def test_ten_skipped_steps_in_a_row_are_an_error() -> None:
    world = _World(steps=30)
    world.task = _Poisoned(frozenset(range(3, 12)) | frozenset(range(13, 30)))  # nine, then no end of them
    with pytest.raises(TrainError, match="step 23 "):
        world.run(skip=True)


def test_scaled_loss_searches_its_scale() -> None:
    """With fp16 an overflow halves the scale and the step is made good by later ones, whatever the config says."""
    world = _World(steps=6, scaled=True)
    world.task = _Poisoned(frozenset({0, 1, 2}))
    before = _bits(world.state)
    assert world.run() == "done"
    assert world.state.scaler.get_scale() == 2.0**13
    assert world.state.meter.skipped == 3
    assert _bits(world.state) != before


def test_stops_with_a_checkpoint() -> None:
    world = _World(steps=6)
    asked = iter([*[Reason.NONE] * 3, Reason.SIGTERM])
    world.ranks = Ranks(stop_requested=lambda: next(asked))
    assert world.run() == "sigterm"
    assert world.state.step == 3
    assert world.steps_of("save") == [3]


def test_a_checkpoint_is_not_written_twice() -> None:
    world = _World(steps=6, checkpoint_every=3)
    asked = iter([*[Reason.NONE] * 3, Reason.SIGINT])
    world.ranks = Ranks(stop_requested=lambda: next(asked))
    assert world.run() == "sigint"
    assert world.steps_of("save") == [3]
    world.ranks = Ranks(stop_requested=lambda: Reason.SIGINT)
    assert world.run() == "sigint"  # resumed and stopped before its first step
    assert world.steps_of("save") == [3]


def test_early_stop_ends_with_a_checkpoint_and_stays_ended() -> None:
    world = _World(steps=20, evaluate_every=2)

    def evaluate(state: TrainState) -> bool:
        if state.step == 6:
            state.finished = "early"
        return False

    world.evaluate = evaluate
    assert world.run() == "early"
    assert world.state.step == 6
    assert world.steps_of("save") == [6]
    assert world.run() == "early"
    assert world.state.step == 6


def test_unreadable_samples_end_the_run_before_their_step() -> None:
    world = _World()
    world.error_at = 4
    with pytest.raises(DataError, match="a broken picture"):
        world.run()
    assert world.state.step == 4
    assert world.steps_of("seen") == [0, 1, 2, 3]


def test_plateau_lowers_the_rate_of_the_next_steps() -> None:
    world = _World(steps=3)
    rates: list[float] = []
    world.evaluate = lambda state: False
    original = world.task.loss

    def note(model: nn.Module, batch: Labelled) -> dict[str, torch.Tensor]:
        rates.append(world.state.optimizer.param_groups[0]["lr"])
        world.state.plateau.factor = 0.5
        return original(model, batch)

    world.task.loss = note  # type: ignore[method-assign]
    world.run()
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
