"""Trackers as a run has them: processes of their own, beside servers that are down, slow, wrong, or come and go."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
import pytest
from harness.logged import log
from harness.mlflow_stand_in import StandIn, standing_in
from harness.processes import start
from harness.sockets import AUDIT, connections

from raycls.config.load import load_text
from raycls.config.sections.track import TrackConfig
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.trackers import trackers as module
from raycls.run.trackers.trackers import Trackers, check_trackers, open_trackers


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to start a process: that is not what these tests are about."""
    monkeypatch.setattr(module, "_END_SECONDS", 120.0)


def _track(uri: str) -> TrackConfig:
    return load_text(f"track: {{mlflow: {{uri: '{uri}'}}}}").run.track


def _open(folder: Path, uri: str, said: list[str], attempt: int = 1) -> Trackers:
    return open_trackers(
        _track(uri), RunFolder(folder), attempt=attempt, name="pets", parameters={"optim.lr": 0.1}, tell=said.append
    )


def _line(step: int, loss: float = 0.5) -> dict[str, Any]:
    return {"kind": "train", "attempt": 1, "step": step, "time": float(step), "loss": loss}


def _children() -> list[psutil.Process]:
    words = "raycls.run.trackers.process"
    return [child for child in psutil.Process().children() if words in child.cmdline()]


def test_no_tracker_is_the_default(tmp_path: Path) -> None:
    trackers = open_trackers(TrackConfig(), RunFolder(tmp_path), attempt=1, name="a", parameters={}, tell=print)
    trackers.wrote()
    trackers.end("FINISHED", {})
    assert list(tmp_path.iterdir()) == []
    assert _children() == []


def test_lines_arrive_and_the_run_ends(tmp_path: Path) -> None:
    said: list[str] = []
    with standing_in() as server:
        trackers = _open(tmp_path, server.uri, said)
        log(tmp_path, trackers, *[_line(step, math.inf if step == 7 else 1 / step) for step in range(1, 301)])
        trackers.end("FINISHED", {"state": "done"})
        assert server.points("train/loss") == [(step, math.inf if step == 7 else 1 / step) for step in range(1, 301)]
        assert server.only_run()["status"] == "FINISHED"
    assert said == [f"MLflow: {server.uri}/#/experiments/1/runs/run1"]
    assert _children() == []


def test_nobody_is_told_but_the_host_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow holds its telemetry back where it sees a test or a CI: here it sees none."""
    for name in ("CI", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "GITHUB_ACTIONS", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AUDITED", str(tmp_path / "audited"))
    with standing_in() as server:
        trackers = _open(tmp_path / "run", server.uri, [])
        log(tmp_path / "run", trackers, _line(1))
        trackers.end("FINISHED", {})
        assert server.points("train/loss") == [(1, 0.5)]
        assert connections(tmp_path / "audited") == {("127.0.0.1", server.port)}


@pytest.mark.faults
def test_down_at_the_start_and_back_later(tmp_path: Path) -> None:
    """It is told once that nobody answers, and what was written meanwhile arrives."""
    with standing_in() as server:
        pass
    said: list[str] = []
    trackers = _open(tmp_path, server.uri, said)
    end = time.monotonic() + 150
    step = 0
    while not said:
        assert time.monotonic() < end
        step += 1
        log(tmp_path, trackers, _line(step))
        time.sleep(0.05)
    with standing_in(server):
        server.until(lambda: server.runs and len(server.points("train/loss")) == step)
        server.fault = "500"
        server.asked.clear()
        log(tmp_path, trackers, _line(step + 1))
        server.until(lambda: server.asked)
    with standing_in(server):  # it was gone in between
        log(tmp_path, trackers, _line(step + 2))
        server.until(lambda: len(server.points("train/loss")) == step + 2)
        trackers.end("FINISHED", {})
    assert [number for number, _ in server.points("train/loss")] == list(range(1, step + 3))
    warning, url = said
    assert warning == (
        f"warning: MLflow at {server.uri} does not answer as it should; the run continues: "
        "ConnectionRefusedError: [Errno 111] Connection refused"
    )
    assert url.startswith("MLflow: http")


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["500", "hang"])
def test_no_answer_costs_a_run_no_time(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The end waits for a moment, and says what is lost."""
    monkeypatch.setattr(module, "_END_SECONDS", 3.0)
    monkeypatch.setitem(module.ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # or it says so on a busy machine
    said: list[str] = []
    with standing_in(fault=fault) as server:
        trackers = _open(tmp_path, server.uri, said)
        server.until(lambda: server.asked if fault == "hang" else said or log(tmp_path, trackers, _line(0)))
        folder = RunFolder(tmp_path)
        folder.store.append_lines(folder.HISTORY, [json.dumps(_line(step)) for step in range(20_000)])
        began = time.process_time()
        for _ in range(20_000):
            trackers.wrote()
        assert time.process_time() - began < 5  # as many lines as a run writes in a day
        began = time.monotonic()
        trackers.end("FINISHED", {})
        assert time.monotonic() - began < 6
    assert "log lines did not arrive; history.jsonl has all of them" in said[-1]
    assert re.match(r"warning: MLflow: 2\d{4} of 2\d{4} log lines", said[-1])
    assert len(said) == (2 if fault == "500" else 1)
    assert _children() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.faults
def test_a_move_to_another_group_does_not_wait(tmp_path: Path) -> None:
    """A node is about to be taken away: what is lacking is brought by the next group, and nothing is lost."""
    said: list[str] = []
    with standing_in(fault="hang") as server:
        trackers = _open(tmp_path, server.uri, said)
        log(tmp_path, trackers, _line(1))
        server.until(lambda: server.asked)
        began = time.monotonic()
        trackers.end("KILLED", {}, moves=True)
        assert time.monotonic() - began < 10
    assert said == []
    assert _children() == []


@pytest.mark.faults
def test_the_process_of_a_tracker_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    with standing_in() as server:
        trackers = _open(tmp_path, server.uri, said)
        log(tmp_path, trackers, _line(1))
        server.until(lambda: server.runs and server.points("train/loss"))
        tracker = trackers._trackers[0]  # pyright: ignore[reportPrivateUsage]
        server.until(lambda: tracker.hear() or tracker._delivered == 1)  # pyright: ignore[reportPrivateUsage]
        _children()[0].kill()
        time.sleep(0.5)
        log(tmp_path, trackers, _line(2))
        trackers.end("FINISHED", {})
    assert said[1:] == [
        f"warning: MLflow at {server.uri} does not answer as it should; the run continues: its process ended with -9",
        "warning: MLflow: 1 of 2 log lines did not arrive; history.jsonl has all of them",
    ]


_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from harness.logged import log
from run.trackers.test_trackers import _line, _open
said = []
trackers = _open(Path(sys.argv[1]), sys.argv[2], said)
log(Path(sys.argv[1]), trackers, *[_line(step) for step in range(1, 6)])
print("written", flush=True)
time.sleep(300)
"""


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["", "hang", "hang before it asks"])
def test_the_run_is_killed(fault: str, tmp_path: Path) -> None:
    """Its tracker brings what it was given, notes the end as KILLED, and is gone; so it is where nobody answers."""
    if fault:
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nif 'raycls.run.trackers.process' in sys.orig_argv:\n"
            "    import time\n    sleep, time.sleep = time.sleep, lambda s: sleep(min(s, 1))\n"
        )
    words = [sys.executable, "-c", _RUN, str(tmp_path / "run"), "", str(Path(__file__).parents[2])]
    with standing_in(fault=fault.partition(" ")[0]) as server:
        words[4] = server.uri
        with start(words, tmp_path, env={"PYTHONPATH": str(tmp_path)}) as command:
            command.until(lambda: "written" in command.stdout and len(command.processes()) == 2)
            if "before" not in fault:
                server.until(lambda: server.asked)
            command.process.send_signal(signal.SIGKILL)
            command.assert_gone(40)
        if not fault:
            assert [step for step, _ in server.points("train/loss")] == [1, 2, 3, 4, 5]
            assert server.only_run()["status"] == "KILLED"


@pytest.mark.faults
def test_the_tracker_of_a_killed_run_leaves_the_word_to_that_of_the_next_start(tmp_path: Path) -> None:
    """It may be so slow that the next one is there before it."""
    folder = RunFolder(tmp_path)
    folder.write_json(folder.TRACKERS, {"id": "abc"})
    folder.store.append_line(folder.HISTORY, json.dumps({**_line(1), "attempt": 2}))
    for attempt in (1, 2):
        folder.begin_attempt(0, 1)
        with standing_in() as server, TemporaryFile() as told:
            settings = {"folder": folder.uri, "local": "", "kind": "mlflow", "id": "abc", "attempt": 3 - attempt}
            settings |= {"name": "pets", "group": "", "dashboard": "", "parameters": {}}
            settings |= {"track": {"uri": server.uri, "experiment": "raycls"}}
            told.write(f"{json.dumps(settings)}\n".encode())
            told.flush()
            words = [sys.executable, "-m", "raycls.run.trackers.process", "1"]  # whoever started it is gone
            environment = {**os.environ, **module.ENVIRONMENT}
            done = subprocess.run(words, stdin=told, env=environment, capture_output=True, text=True, timeout=100)
            assert done.returncode == 0, done.stderr
            assert bool(server.runs) == (attempt == 1)  # a start 2, of which 1 is known; then a start 1, of 2


def test_one_run_through_every_restart(tmp_path: Path) -> None:
    """The id lies in the run folder; what no start had brought is read from the history."""
    folder, said = RunFolder(tmp_path), list[str]()
    folder.begin_attempt(0, 1)
    server = StandIn()
    with standing_in(server):
        trackers = _open(tmp_path, server.uri, said)
        log(tmp_path, trackers, _line(1))
        trackers.end("KILLED", {})
        folder.store.append_lines(folder.HISTORY, [json.dumps(_line(step)) for step in (2, 3, 4)])  # not told of
        folder.begin_attempt(3, 1)  # goes on from the checkpoint of step 3: step 4 is done again
        trackers = _open(tmp_path, server.uri, said, attempt=2)
        log(tmp_path, trackers, {**_line(4, 0.25), "attempt": 2})
        trackers.end("FINISHED", {})
        assert server.points("train/loss") == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25)]
        assert server.only_run()["status"] == "FINISHED"


@pytest.mark.parametrize("kind", ["mlflow", "wandb"])
def test_a_missing_package_is_told_with_the_line_that_installs_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {"mlflow": "{mlflow: {uri: 'http://host:5000'}}", "wandb": "{wandb: {mode: offline}}"}[kind]
    track = load_text(f"track: {text}").run.track
    check_trackers(track, RunFolder(tmp_path))
    found = importlib.util.find_spec
    empty = importlib.util.spec_from_loader(kind, None)  # a folder of that name, without a package in it
    for spec in (None, empty):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec if name == kind else found(name))
        with pytest.raises(ConfigError, match=rf"pip install 'raycls\[{kind}\]'"):
            check_trackers(track, RunFolder(tmp_path))
        check_trackers(TrackConfig(), RunFolder(tmp_path))
