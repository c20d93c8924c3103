"""Runs that are killed or stopped, and go on with another number of ranks: nothing is lost, repeated or changed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.jobs import (
    curve,
    make_job,
    train,
    train_rank,
    train_rank_killed,
    train_rank_stopped,
    train_rank_stopped_evaluating,
    weights,
)
from harness.kills import run_killed
from harness.ranks import run_ranks

from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check

_OPTIONS = (
    "train.micro_batches=4",
    "data.batch_size=32",
    "train.duration=3ep",
    "train.ledger=ids",
    "track.log_every=2st",  # a checkpoint of an odd step holds half a line
    "checkpoint.every=3st",
    "optim.ema=0.9",
    "model.name=tiny_cnn",
    "model.args={width: 8, dropout: 0.2}",
)
_FAST = ("train.reduction=fast", "model.args={width: 96}")
"""3.5 MB of gradients: DistributedDataParallel needs several buckets, which a start must not pack in another way."""


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted: twelve steps in one process."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    train(make_job(folder, data, *_OPTIONS))
    return folder


def _assert_same(folder: Path, reference: Path) -> None:
    assert weights(folder) == weights(reference)
    assert curve(folder) == curve(reference)
    report = check(RunFolder(folder))
    assert report.ok, report.problems
    assert (report.steps, report.epochs) == (12, 3)


@pytest.mark.faults
@pytest.mark.parametrize(("world", "who", "at", "then"), [(2, 1, 7, 3), (3, 0, 4, 0)])
def test_one_rank_is_killed(
    world: int, who: int, at: int, then: int, data: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    codes = run_killed(world, train_rank_killed, make_job(folder, data, *_OPTIONS, world=world), who, at)
    assert codes[who] == -9
    assert all(code == 1 for rank, code in enumerate(codes) if rank != who), "a rank did not notice"
    assert not (folder / "model").exists()
    train(make_job(folder, data, *_OPTIONS, world=then), then)
    _assert_same(folder, reference)
    assert [attempt.workers for attempt in RunFolder(folder).attempts()] == [world, max(1, then)]


@pytest.mark.faults
def test_every_rank_is_killed_at_random_moments(data: Path, reference: Path, tmp_path: Path) -> None:
    """Three kills at moments of the system's choice, each with another number of ranks, then one quiet start."""
    folder = tmp_path / "run"
    delays = [random.SystemRandom().uniform(0, 0.25) for _ in range(3)]
    killed = []
    for world, delay in zip((3, 1, 2), delays, strict=True):
        job = make_job(folder, data, *_OPTIONS, world=world)
        killed.append(run_killed(world, train_rank, job, when=_later(folder / "attempts.jsonl", delay)))
    print(f"killed {delays} seconds after each start: {killed}")  # shown where the test fails
    assert killed[0] == [-9, -9, -9], "the run was over before it could be killed"
    train(make_job(folder, data, *_OPTIONS))
    _assert_same(folder, reference)


def _later(file: Path, delay: float) -> Callable[[], bool]:
    """True `delay` seconds after `file` has grown."""
    size = file.stat().st_size if file.exists() else 0
    grown: list[float] = []

    def now() -> bool:
        if not grown and file.exists() and file.stat().st_size > size:
            grown.append(time.monotonic())
        return bool(grown) and time.monotonic() >= grown[0] + delay

    return now


@pytest.mark.faults
@pytest.mark.parametrize("at", [2, 4, 12])
def test_killed_between_a_step_and_its_checkpoint(at: int, data: Path, reference: Path, tmp_path: Path) -> None:
    """Steps are logged before the checkpoint of the same step is made."""
    folder = tmp_path / "run"
    assert run_killed(1, train_rank, make_job(folder, data, *_OPTIONS), at) == [-9]
    train(make_job(folder, data, *_OPTIONS))
    _assert_same(folder, reference)


@pytest.mark.faults
def test_fast_is_the_same_run_after_a_kill(data: Path, tmp_path: Path) -> None:
    options = (*_OPTIONS, *_FAST)
    train(make_job(tmp_path / "reference", data, *options, world=3), 3)
    folder = tmp_path / "run"
    codes = run_killed(3, train_rank_killed, make_job(folder, data, *options, world=3), 2, 5)
    assert codes[2] == -9
    train(make_job(folder, data, *options, world=3), 3)
    assert RunFolder(folder).attempts()[-1].step == 4  # an evaluation that is the best one saves too
    _assert_same(folder, tmp_path / "reference")


@pytest.mark.parametrize(
    ("world", "after", "reason", "then"), [(2, 5, "sigint", 3), (0, 7, "sigterm", 1), (1, 0, "sigint", 2)]
)
def test_stopped_on_request(
    world: int, after: int, reason: str, then: int, data: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    job = make_job(folder, data, *_OPTIONS, world=world)
    if world:
        result = run_ranks(world, train_rank_stopped, job, after, reason)[0]
    else:
        result = train_rank_stopped(0, 1, job, after, reason)
    assert (result["state"], result["reason"], result["step"]) == ("stopped", reason, after)
    assert RunFolder(folder).steps()[-1:] == [after]
    assert not (folder / "model").exists()
    if after:
        report = check(RunFolder(folder))
        assert (report.ok, report.steps) == (True, after)
    train(make_job(folder, data, *_OPTIONS, world=then), then)
    _assert_same(folder, reference)


def test_a_run_cut_at_every_step(data: Path, reference: Path, tmp_path: Path) -> None:
    """One step per start: whatever is not in a checkpoint would show."""
    folder = tmp_path / "run"
    for step in range(1, 12):
        result = train_rank_stopped(0, 1, make_job(folder, data, *_OPTIONS), 1, "sigint")
        assert result["step"] == step
    train(make_job(folder, data, *_OPTIONS))
    _assert_same(folder, reference)


@pytest.mark.parametrize("world", [0, 2])
def test_a_run_that_is_asked_to_stop_in_every_evaluation(world: int, data: Path, tmp_path: Path) -> None:
    """An evaluation is left for a checkpoint of its step, and is the first thing that the next start does."""
    options = (*_OPTIONS, "evaluate.batch_size=3", "checkpoint.every=100st")
    reference, folder = tmp_path / "reference", tmp_path / "run"
    train(make_job(reference, data, *options))
    batches = -(-json.loads((reference / "plan.json").read_text())["evaluate_rows"] // 3)
    for step, after in ((4, 1), (4, 0), (8, batches), (12, batches), (12, 2)):
        asked = -(-after // max(1, world))
        job = make_job(folder, data, *options, world=world)
        if world:
            result = run_ranks(world, train_rank_stopped_evaluating, job, asked, "sigterm")[0]
        else:
            result = train_rank_stopped(0, 1, job, asked, "sigterm", evaluating=True)
        assert (result["state"], result["reason"], result["step"]) == ("stopped", "sigterm", step)
        assert RunFolder(folder).steps()[-1] == step
        done = [record["step"] for record in curve(folder) if record["kind"] == "evaluate"]
        assert done == [before for before in (4, 8) if before < step]
    result = train(make_job(folder, data, *options))
    assert result["final"]["step"] == 12
    _assert_same(folder, reference)
