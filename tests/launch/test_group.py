"""A group of workers that has nothing to train: its messages, its errors, and the place of its logs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.processes import start
from harness.runs import Foreign

from raycls.config.sections.duration import Duration
from raycls.errors import LaunchError, to_json

_SCRIPT = r"""
import sys
from raycls.config.load import from_dict
from raycls.errors import RayclsError
from raycls.cluster.connection import running_cluster
from raycls.session.job import Job
from raycls.train.reasons import Reason
from harness import groups

run = from_dict({"scale": {"workers": 2, "max_failures": 1}, "train": {"micro_batches": 2}})
job = Job({"run": {"name": "group"}}, sys.argv[1], {}, None, "cpu", "inline", ".", "")
with running_cluster() as cluster:
    from raycls.launch.group import run_group
    events = []
    try:
        run_group(groups.error_of_rank_1, job, run, lambda: Reason.NONE, events.append, workers=2, logs=cluster.logs)
    except RayclsError as error:
        print(type(error).__name__, error.exit_code, error.what, "|", error.where, "|", error.found)
    for told in sorted(event.text for event in events):
        print(told)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_error_of_one_rank_is_raised_by_the_driver(foreign: Foreign, tmp_path: Path) -> None:
    environment = {**foreign.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
    with start([sys.executable, "-c", _SCRIPT, str(tmp_path / "run")], tmp_path, env=environment) as command:
        assert command.wait(150) == 0, command.said()
    error, *told = command.stdout.splitlines()
    assert error == "DataError 3 a file is bad | here.png | nothing"
    assert told == ["rank 0 of 2 heard rank 0", "rank 1 of 2 heard rank 0"]
    foreign.assert_idle()


def test_lost_workers_are_told_with_the_place_of_the_logs() -> None:
    from raycls.launch.group import _lost

    logs = "/tmp/raycls-1-x/session_latest/logs"
    error = _lost(logs, [RuntimeError("first line\n  last line")])
    assert isinstance(error, LaunchError)
    assert error.found == "last line"
    assert error.fix is not None
    assert logs in error.fix
    assert _lost(logs, []).found == "the workers ended without a result"


def test_a_group_without_a_place_is_told_apart() -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    from raycls.launch.group import UnplacedError, WorkersLostError, _lost

    assert type(_lost("logs", [ControllerError(WorkerGroupStartupTimeoutError(2))])) is UnplacedError
    assert type(_lost("logs", [ControllerError(RuntimeError("a bug"))])) is WorkersLostError
    assert type(_lost("logs", [RuntimeError("a crash")])) is WorkersLostError


def test_collectives_wait_longer_than_the_watch_for_progress() -> None:
    """Else gloo's error comes first, and nothing says where the workers stood."""
    from raycls.launch.group import _collective_seconds

    assert _collective_seconds(Duration(30, "m")) > 1800
    assert _collective_seconds("off") > 7 * 86400


def test_a_signal_does_not_take_back_that_a_failed_group_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that looks for its orders between the two would wait in a collective for ever."""
    from raycls.launch import group
    from raycls.session.messages import Failed
    from raycls.train.reasons import Reason

    told: list[Reason] = []
    failed = Failed(to_json(LaunchError("it failed")))
    taken = iter([[failed], *[[]] * 5])
    mailbox = SimpleNamespace(
        stop=SimpleNamespace(remote=told.append), take=SimpleNamespace(remote=lambda seconds: next(taken))
    )
    thread = SimpleNamespace(is_alive=lambda: told.count(Reason.ABORT) < 1 or next(lives))
    lives = iter([True, True, False])
    monkeypatch.setattr(group, "_GRACE", 0.0)
    monkeypatch.setattr(group.ray, "get", lambda value: value)
    asked = lambda: Reason.SIGINT if Reason.ABORT in told else Reason.NONE  # noqa: E731
    outcome = group._wait(thread, mailbox, asked, lambda record: None, None)  # type: ignore[arg-type]
    assert outcome == failed
    assert told == [Reason.ABORT]
