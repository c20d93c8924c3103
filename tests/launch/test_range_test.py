"""The range test of the learning rate: which rates, where it stops, what it suggests, and what it leaves."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from harness.jobs import make_job, write_arrays

from raycls.config import load as config
from raycls.launch.range_test import Curve, Range, range_test, smoothed, suggested


def test_rates_rise_until_the_loss_diverges_and_the_run_is_not_touched(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=60, val=8)
    options = "optim.lr_rule=linear", "optim.ema=0.9", "schedule={name: cosine, warmup: 1ep}", "data.batch_size=16"
    run = config.from_dict(make_job(tmp_path / "run", data, *options).config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    (tmp_path / "test").mkdir()
    wanted = Range(1e-4, 1e4, 40)
    found = range_test(run, wanted, str(tmp_path / "test"), say=lambda text: None, work=lambda now: None)
    assert found.rates == pytest.approx([1e-4 * 10 ** (8 * step / 39) for step in range(len(found.rates))])
    assert found.diverged and 10 < len(found.rates) < 40
    assert all(math.isfinite(loss) for loss in found.losses)
    rate = suggested(found)
    assert rate is not None and 1e-4 < rate < 10
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize("options", [("finetune.lr_scale={head: 10}",), ("finetune.lr_scale={all: 0.5}",)])
def test_the_rates_are_those_of_the_option_whatever_part_a_layer_has(options: tuple[str, ...], tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=40, val=4)
    run = config.from_dict(make_job(tmp_path / "run", data, *options).config)
    (tmp_path / "test").mkdir()
    found = range_test(run, Range(1e-5, 1e-3, 12), str(tmp_path / "test"), say=lambda text: None, work=lambda now: None)
    assert found.rates == pytest.approx([1e-5 * 10 ** (2 * step / 11) for step in range(12)])


def test_statistics_of_the_global_batch_are_those_of_one_micro_batch(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=40, val=4)
    of_micro_batches = "train.micro_batches=2", "train.batch_norm=sync"
    curves: list[Curve] = []
    for name, options in {"sync": of_micro_batches, "one": ("train.micro_batches=1",)}.items():
        (tmp_path / f"{name}-test").mkdir()
        run = config.from_dict(make_job(tmp_path / name, data, *options, world=1 + (name == "sync")).config)
        test = str(tmp_path / f"{name}-test")
        curves.append(range_test(run, Range(1e-4, 1e-2, 12), test, say=lambda text: None, work=lambda now: None))
    assert curves[0] == curves[1]


def test_the_mean_has_no_memory_of_what_was_before() -> None:
    # 0.1 * 2 / 0.1, then (0.9 * 0.2 + 0.1 * 4) / 0.19
    assert smoothed([2.0, 4.0]) == pytest.approx([2.0, 0.58 / 0.19])


@pytest.mark.parametrize(
    ("smooth", "expected"),
    [
        ((2.0, 1.9, 1.0, 1.5, 9.0), 0.1),  # the lowest at 1.0
        ((2.0, 2.1, 2.5, 4.0, 9.0), None),  # it never falls
        ((2.0, 1.99, 1.985, 4.0, 9.0), None),  # by less than a fiftieth
    ],
)
def test_the_suggestion_is_a_tenth_of_the_best_rate(smooth: tuple[float, ...], expected: float | None) -> None:
    tested = Curve((0.01, 0.1, 1.0, 10.0, 100.0), smooth, smooth, False)
    assert suggested(tested) == (None if expected is None else pytest.approx(expected))
    assert suggested(dataclasses.replace(tested, diverged=True)) == suggested(tested)
