"""A Ray of our own or somebody else's: one after the other in one process, and both are left as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.processes import start
from harness.runs import Foreign

from raycls.cluster import connection, environment
from raycls.errors import LaunchError

_SCRIPT = """
import json, os, signal, sys
from raycls.cluster.connection import running_cluster
from raycls.cluster.environment import prepare_environment

prepare_environment()
signal.signal(signal.SIGTERM, lambda *_: None)
ours = signal.getsignal(signal.SIGTERM)
address = os.environ.pop("RAY_ADDRESS")
for where in (address, "", "local", address):
    os.environ["RAY_ADDRESS"] = where
    environment = dict(os.environ)
    with running_cluster() as found:
        import ray
        session = ray.get_runtime_context().gcs_address
        from ray._private import worker

        worker.print_to_stdstream({"lines": ["a warning"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
        kept = signal.getsignal(signal.SIGTERM) is ours
        print(json.dumps([found.private, found.resources["CPU"], found.gpus, session, kept]), flush=True)
    changed = {name for name in {*environment, *os.environ} if environment.get(name) != os.environ.get(name)}
    print(json.dumps(sorted(changed - {"PYTHONBREAKPOINT", "RAY_CLIENT_MODE"})), flush=True)  # Ray sets these itself
"""


@pytest.mark.ray
@pytest.mark.slow
def test_joined_and_private_in_turn(foreign: Foreign, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {**foreign.environment, "HOME": str(home)}
    with start([sys.executable, "-c", _SCRIPT], tmp_path, env=environment) as command:
        assert command.wait(120) == 0, command.said()
        command.assert_gone(5)
        assert not command.leftovers()
    lines = [json.loads(line) for line in command.stdout.splitlines()]
    found = lines[::2]
    assert lines[1::2] == [[]] * 4  # what is set for a cluster is gone with it
    assert [line[0] for line in found] == [False, True, True, False]
    address = foreign.environment["RAY_ADDRESS"]
    assert [line[3].rpartition(":")[2] == address.rpartition(":")[2] for line in found] == [True, False, False, True]
    processors = float(len(os.sched_getaffinity(0)))
    assert [line[1] for line in found] == [3.0, processors, processors, 3.0]
    assert all(line[4] for line in found)
    assert not command.stderr
    assert not (home / ".ray").exists()


def test_variables_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "RAY_USAGE_STATS_ENABLED": "1"})
    monkeypatch.delitem(os.environ, "RAY_DATA_LOG_LEVEL", raising=False)
    environment.prepare_environment()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_DATA_LOG_LEVEL"] == "ERROR"


def test_variables_are_changed_for_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLS_KEPT", "before")
    monkeypatch.delenv("RAYCLS_NEW", raising=False)
    with (
        pytest.raises(ZeroDivisionError),
        environment.changed({"RAYCLS_KEPT": "within", "RAYCLS_NEW": "1"}),
    ):
        assert (os.environ["RAYCLS_KEPT"], os.environ["RAYCLS_NEW"]) == ("within", "1")
        del os.environ["RAYCLS_NEW"]
        raise ZeroDivisionError
    assert os.environ["RAYCLS_KEPT"] == "before"
    assert "RAYCLS_NEW" not in os.environ


def test_folders_of_dead_runs_are_swept_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"raycls-{ended.pid}-abc", f"raycls-{os.getpid()}-abc", f"raycls-{ended.pid}", f"other-{ended.pid}-abc"]
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    connection._sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_logs_that_an_error_named_stay_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    fresh, old = (tmp_path / f"raycls-{ended.pid}-{name}" for name in ("fresh", "old"))
    for folder, hours in ((fresh, 23), (old, 25)):
        folder.mkdir()
        (folder / "failed").touch()
        os.utime(folder / "failed", (time.time() - hours * 3600,) * 2)
    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    connection._sweep()
    assert (fresh.exists(), old.exists()) == (True, False)


def test_an_error_that_names_the_logs_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def started(folder: str) -> Iterator[connection.Cluster]:
        yield connection.Cluster(True, "local", {}, f"{folder}/session_latest/logs")

    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    monkeypatch.setattr(connection, "_started", started)
    with pytest.raises(LaunchError), connection._private():
        raise LaunchError("it does not fit")
    assert not list(tmp_path.iterdir())
    with pytest.raises(LaunchError), connection._private() as running:
        raise LaunchError("it failed", fix=f"the logs are in {running.logs}")
    (kept,) = tmp_path.iterdir()
    assert (kept / "failed").exists()


def test_nothing_is_swept_where_nobody_can_tell_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / f"raycls-{ended.pid}-abc"
    folder.mkdir()
    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    monkeypatch.setattr(connection, "_PROC", str(tmp_path / "proc"))
    connection._sweep()
    assert folder.exists()


def test_a_folder_that_goes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    (tmp_path / f"raycls-{ended.pid}-abc").symlink_to(tmp_path / "gone")  # in the list, and not there
    connection._sweep()
