"""A run that is tracked is the run that is not: same weights, same history, whatever becomes of the tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.jobs import curve, make_job, train, train_rank, train_rank_stopped, weights
from harness.kills import run_killed
from harness.mlflow_stand_in import StandIn, standing_in

from raycls.errors import TrainError
from raycls.run.trackers import trackers as module
from raycls.session import training
from raycls.session.job import Job, World
from raycls.session.messages import Event

_OPTIONS = ("train.micro_batches=4", "data.batch_size=32", "train.duration=3ep", "checkpoint.every=3st")
_LOGGED = ("track.log_every=1st",)


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reference"
    train(make_job(folder, data, *_OPTIONS, *_LOGGED))
    return folder


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to start a process: that is not what these tests are about."""
    monkeypatch.setattr(module, "_END_SECONDS", 120.0)


def _job(folder: Path, data: Path, server: StandIn, *options: str) -> Job:
    return make_job(folder, data, *_OPTIONS, *_LOGGED, f"track.mlflow.uri={server.uri}", *options)


@pytest.mark.faults
def test_killed_and_resumed_is_one_run_with_every_step(data: Path, reference: Path, tmp_path: Path) -> None:
    """The checkpoint is of step 3 or 4. The tracker of the first start is still busy when the second one begins."""
    folder = tmp_path / "run"
    with standing_in() as server:
        assert run_killed(1, train_rank, _job(folder, data, server), 5) == [-9]
        train(_job(folder, data, server))
        run = server.only_run()
        losses = {record["step"]: record["loss"] for record in curve(folder) if record["kind"] == "train"}
        assert dict(server.points("train/loss")) == losses
        assert sorted(step for step, _ in server.points("train/loss")) == list(range(1, 13))
        assert [step for step, _ in server.points("val/top1")] == [4, 8, 12]
    assert (run["status"], run["tags"]["raycls.step"]) == ("FINISHED", "12")
    assert (run["params"]["model.args.width"], run["params"]["track.log_every"]) == ("8", "1st")
    assert weights(folder) == weights(reference)
    assert curve(folder) == curve(reference)


@pytest.mark.faults
def test_a_tracker_that_is_down_changes_no_bit_and_is_told_of(data: Path, reference: Path, tmp_path: Path) -> None:
    with standing_in() as server:
        pass
    told: list[dict[str, Any]] = []
    result = training.train(_job(tmp_path / "run", data, server), World(post=told.append))
    assert result["state"] == "done"
    texts = [one.text for one in told if isinstance(one, Event)]
    assert [text.split(":")[1].split(" at ")[0] for text in texts] == [" MLflow", " MLflow"]
    assert texts[1] == "warning: MLflow: 15 of 15 log lines did not arrive; history.jsonl has all of them"
    assert weights(tmp_path / "run") == weights(reference)
    assert curve(tmp_path / "run") == curve(reference)


def test_a_run_that_stops_and_one_that_fails_say_so(data: Path, tmp_path: Path) -> None:
    with standing_in() as server:
        train_rank_stopped(0, 1, _job(tmp_path / "run", data, server), 2, "sigint")
        assert server.only_run()["status"] == "KILLED"
        with pytest.raises(TrainError):
            train(_job(tmp_path / "other", data, server, "optim.lr=1e30"))
        other = server.runs["run2"]
        assert other["status"] == "FAILED"
        assert "finite" in other["tags"]["raycls.error"]
