"""The plan: what follows from a config and the data, counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.duration import Duration
from raycls.config.sections.track import TrackConfig
from raycls.config.sections.train import CheckpointConfig, EvaluateConfig, TrainConfig
from raycls.train.plan import Plan, due, make_plan


def _plan(samples: int = 1003, workers: int = 3, evaluate_rows: int = 200, **options: Any) -> Plan:
    sections: dict[str, dict[str, Any]] = {"train": {}, "evaluate": {}, "checkpoint": {}, "track": {}, "augment": {}}
    for name, value in options.items():
        section, _, field = name.partition("_")
        sections[section][field] = (
            Duration.parse(value) if field in ("duration", "budget", "every", "off_after") else value
        )
    return make_plan(
        seed=1,
        samples=samples,
        classes=4,
        evaluate_rows=evaluate_rows,
        batch_size=64,
        workers=workers,
        train=TrainConfig(**sections["train"]),
        evaluate=EvaluateConfig(**sections["evaluate"]),
        checkpoint=CheckpointConfig(**sections["checkpoint"]),
        track=TrackConfig(**sections["track"]),
        augment=AugmentConfig(**sections["augment"]),
    )


def test_steps_are_counted() -> None:
    plan = _plan(train_duration="10ep")
    assert (plan.steps_per_epoch, plan.total_steps) == (16, 160)  # 15 whole batches and one of 43
    assert (plan.evaluate_every, plan.checkpoint_every, plan.log_every) == (16, 16, 50)
    assert (plan.micro_batches, plan.evaluate_batch) == (3, 64)
    assert plan.epochs(24) == 1.5


@pytest.mark.parametrize(("duration", "total"), [("1ep", 16), ("0.5ep", 8), ("0.01ep", 1), ("5st", 5), ("2.25ep", 36)])
def test_durations(duration: str, total: int) -> None:
    assert _plan(train_duration=duration).total_steps == total


def test_per_cent_are_of_the_run() -> None:
    plan = _plan(train_duration="200st", evaluate_every="10%", checkpoint_every="25%")
    assert (plan.evaluate_every, plan.checkpoint_every) == (20, 50)
    assert _plan(train_duration="3st", evaluate_every="10%").evaluate_every == 1


@pytest.mark.parametrize(
    ("after", "epoch"), [("off", 0), ("90%", 9), ("85%", 9), ("84%", 8), ("7.5ep", 8), ("39st", 2), ("40st", 3)]
)
def test_augmentation_ends_with_a_whole_epoch(after: str, epoch: int) -> None:
    """Of 10 epochs of 16 steps; 40 steps are 2.5 epochs."""
    plan = _plan(train_duration="10ep", **({} if after == "off" else {"augment_off_after": after}))
    assert plan.off_epoch == epoch
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert ("off_epoch" in plan.to_dict()) == (epoch > 0)


def test_sizes_begin_with_whole_epochs() -> None:
    """Of 10 epochs of 16 steps: 72 steps are 4.5 epochs, which is 5."""
    plan = _plan(train_duration="10ep", augment_progressive={"0%": 8, "22%": 12, "72st": 16, "9ep": 10})
    assert plan.sizes == ((0, 8), (2, 12), (5, 16), (9, 10))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert "sizes" not in _plan().to_dict()


def test_checkpoints_by_time_and_a_budget() -> None:
    plan = _plan(checkpoint_every="15m", train_budget="2h")
    assert (plan.checkpoint_every, plan.checkpoint_seconds, plan.budget_seconds) == (0, 900.0, 7200.0)
    assert (_plan().checkpoint_seconds, _plan().budget_seconds) == (0.0, 0.0)


@pytest.mark.parametrize(("workers", "expected"), [(0, 1), (1, 1), (5, 5)])
def test_micro_batches_by_the_number_of_workers(workers: int, expected: int) -> None:
    assert _plan(workers=workers).micro_batches == expected
    assert _plan(workers=workers, train_micro_batches=8).micro_batches == 8


def test_evaluations_come_at_the_end_too() -> None:
    plan = _plan(train_duration="40st")
    assert [step for step in range(1, 41) if plan.evaluates_after(step)] == [16, 32, 40]
    off = make_plan(
        seed=0,
        samples=10,
        classes=2,
        evaluate_rows=5,
        batch_size=5,
        workers=0,
        train=TrainConfig(),
        evaluate=EvaluateConfig(every="off"),
        checkpoint=CheckpointConfig(),
        track=TrackConfig(),
        augment=AugmentConfig(),
    )
    assert not any(off.evaluates_after(step) for step in range(1, 100))
    assert _plan(evaluate_rows=0).evaluate_every == 0


def test_log_lines_come_at_the_end_too() -> None:
    plan = _plan(train_duration="110st", evaluate_rows=0)
    assert [step for step in range(1, 111) if plan.logs_after(step)] == [50, 100, 110]
    with_evaluations = _plan(train_duration="110st", evaluate_every="40st")
    assert [step for step in range(1, 111) if with_evaluations.logs_after(step)] == [40, 50, 80, 100, 110]


def test_evaluation_batches_do_not_depend_on_workers() -> None:
    assert _plan(workers=1).evaluate_batch == _plan(workers=3).evaluate_batch == 64
    assert _plan(evaluate_batch_size=7).evaluate_batch == 7


def test_due() -> None:
    assert [step for step in range(1, 8) if due(step, 3)] == [3, 6]
    assert not any(due(step, 0) for step in range(5))


def test_goes_through_json() -> None:
    plan = _plan(checkpoint_every="15m")
    written = json.loads(json.dumps({**plan.to_dict(), "of a later version": 1}))
    assert Plan.from_dict(written) == plan
    assert plan.order.batch(0).tolist() == Plan.from_dict(written).order.batch(0).tolist()


def test_what_only_a_start_knows_follows_the_rest() -> None:
    plan = _plan()
    started = replace(plan, reduction="fast", device="cuda", precision="bf16", left_out=(3, 8))
    more = {"reduction": "fast", "device": "cuda", "precision": "bf16", "left_out": (3, 8)}
    assert list(started.to_dict().items()) == [*plan.to_dict().items(), *more.items()]
    assert Plan.from_dict(json.loads(json.dumps(started.to_dict()))) == started


def test_few_images_by_heart_have_no_sizes_over_time() -> None:
    sizes = {"0%": 8, "50%": 12}
    assert _plan(augment_progressive=sizes).sizes == ((0, 8), (5, 12))
    assert _plan(augment_progressive=sizes, train_overfit=8).sizes == ()


@pytest.mark.parametrize(
    ("micro_batches", "workers", "parts"), [("auto", 0, 1), ("auto", 1, 1), ("auto", 3, 3), (4, 0, 4), (4, 3, 4)]
)
def test_parts_of_a_batch(micro_batches: int | str, workers: int, parts: int) -> None:
    assert _plan(workers=workers, train_micro_batches=micro_batches).micro_batches == parts
