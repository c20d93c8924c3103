"""A Ray of our own or somebody else's: one after the other in one process, and both are left as they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.processes import start
from harness.runs import Foreign

from raycls.launch import cluster

_SCRIPT = """
import json, os, signal, sys
from raycls.launch.cluster import running_cluster

signal.signal(signal.SIGTERM, lambda *_: None)
ours = signal.getsignal(signal.SIGTERM)
address = os.environ.pop("RAY_ADDRESS")
for where in (address, "", "local", address):
    os.environ["RAY_ADDRESS"] = where
    environment = dict(os.environ)
    with running_cluster() as found:
        import ray
        session = ray.get_runtime_context().gcs_address
        kept = signal.getsignal(signal.SIGTERM) is ours
        print(json.dumps([found.private, found.cpus, found.gpus, session, kept]), flush=True)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        assert environment.get(name) == os.environ.get(name), name
"""


@pytest.mark.ray
def test_joined_and_private_in_turn(foreign: Foreign, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {**foreign.environment, "HOME": str(home)}
    with start([sys.executable, "-c", _SCRIPT], tmp_path, env=environment) as command:
        assert command.wait(120) == 0, command.said()
        command.assert_gone(5)
        assert not command.leftovers()
    found = [json.loads(line) for line in command.stdout.splitlines()]
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
    cluster.prepare_environment()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_DATA_LOG_LEVEL"] == "ERROR"


def test_folders_of_dead_runs_are_swept_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"raycls-{ended.pid}-abc", f"raycls-{os.getpid()}-abc", f"raycls-{ended.pid}", f"other-{ended.pid}-abc"]
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(cluster, "_TEMPORARY", str(tmp_path))
    cluster._sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_ending_while_ray_starts_has_the_code_of_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def interrupted(*_: object, **__: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise SystemExit(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", interrupted)
    with pytest.raises(SystemExit) as caught:
        cluster._connect("local")
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
