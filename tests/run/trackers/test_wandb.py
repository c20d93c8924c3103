"""Weights & Biases: what its files hold, read back, and whom it talks to."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.logged import log
from harness.sockets import AUDIT, connections
from harness.wandb_files import contents

from raycls.config.load import load_text
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.trackers import trackers as module
from raycls.run.trackers.trackers import Trackers, check_trackers, open_trackers


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to start a process: that is not what these tests are about."""
    monkeypatch.setattr(module, "_END_SECONDS", 120.0)


def _open(folder: Path, said: list[str], *, attempt: int = 1, mode: str = "offline", **more: Any) -> Trackers:
    track = load_text(f"track: {{wandb: {{mode: {mode}, project: animals}}}}").run.track
    parameters = {"optim.lr": 0.1, "augment.eval": [], "scale.workers": attempt}
    return open_trackers(
        track, RunFolder(folder), attempt=attempt, name="pets", parameters=parameters, tell=said.append, **more
    )


def _line(step: int, loss: float = 0.5, attempt: int = 1) -> dict[str, Any]:
    return {"kind": "train", "attempt": attempt, "step": step, "time": float(step), "loss": loss}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime)


def test_files_hold_the_run_and_a_later_start_writes_all_of_it(tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path), list[str]()
    folder.begin_attempt(0, 1)
    trackers = _open(tmp_path, said, dashboard="http://head:8265/#/jobs/one", group="hunt")
    log(tmp_path, trackers, *[_line(step, 1 / step) for step in (1, 2, 3)])
    evaluation = {"kind": "evaluate", "split": "val", "step": 3, "time": 3.0, "top1": 0.75, "best": True}
    log(tmp_path, trackers, {**evaluation, "attempt": 1})
    trackers.end("KILLED", {"state": "stopped", "best": {"value": 0.75}})
    folder.begin_attempt(2, 1)  # the checkpoint of step 3 was set aside
    trackers = _open(tmp_path, said, attempt=2)
    log(tmp_path, trackers, _line(3, 0.25, attempt=2))
    trackers.end("FINISHED", {"state": "done"})

    first, second = map(contents, _files(tmp_path))
    identity = folder.read_json(RunFolder.TRACKERS)["id"]
    assert first["run"] == (identity, "hunt", "animals", "Ray job: http://head:8265/#/jobs/one", "hunt/pets")
    assert second["run"][0] == identity
    assert first["config"].items() >= {"optim.lr": 0.1, "augment.eval": [], "scale.workers": 1}.items()
    assert second["config"]["scale.workers"] == 2
    assert [(row["step"], row.get("train/loss"), row.get("val/top1")) for row in first["rows"]] == [
        (1, 1.0, None),
        (2, 0.5, None),
        (3, 1 / 3, None),
        (3, None, 0.75),
    ]
    assert [(row["step"], row["train/loss"]) for row in second["rows"]] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert [row["_step"] for row in first["rows"]] == [0, 1, 2, 3]  # W&B's own steps increase
    assert (first["exit_code"], second["exit_code"]) == (255, 0)
    assert first["summary"]["best"] == {"value": 0.75}
    assert [line for line in said if not line.startswith("Weights & Biases: ")] == []
    assert not [name for name in os.listdir(tmp_path / "wandb") if "requirements" in name]


def test_offline_files_need_a_disk() -> None:
    track = load_text("track: {wandb: {mode: offline}}").run.track
    with pytest.raises(ConfigError, match="need a run folder on a disk"):
        check_trackers(track, RunFolder("s3://bucket/runs/pets?region=eu-central-1&endpoint_override=127.0.0.1:9"))


@contextmanager
def _proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that notes which address it is asked for and lets nobody through."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(503)

        do_GET = do_POST = do_CONNECT = _any  # noqa: N815 - names of the base class

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_nobody_is_told_but_the_host_that_was_named(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's core is a program in Go, which respects a proxy: whom it wants to reach is seen there. What the Python side
    connects to is seen by an audit hook: nothing but the socket file of that core. Online shows that the proxy sees."""
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    audited = tmp_path / "audited"
    with _proxy() as (address, asked):
        environment = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": "", "AUDITED": str(audited)}
        environment |= {"PYTHONPATH": str(tmp_path), "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path / "home")}
        environment |= {"WANDB_BASE_URL": "https://wandb.example.org"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        said: list[str] = []
        trackers = _open(tmp_path / "run", said, mode=mode)
        log(tmp_path / "run", trackers, _line(1))
        if mode == "online":
            end = time.monotonic() + 120
            while not asked and time.monotonic() < end:
                time.sleep(0.05)
            monkeypatch.setattr(module, "_END_SECONDS", 1.0)
        trackers.end("FINISHED", {})
    (connected,) = connections(audited)
    assert re.fullmatch(r"/.*/wandb-\d+-\d+-\d+/socket", connected)
    assert {*asked} == (set() if mode == "offline" else {"CONNECT wandb.example.org:443"})
    assert not (tmp_path / "home").exists()
    if mode == "online":
        assert said[-1].startswith("warning: Weights & Biases: 1 of 1 log lines did not arrive")
    _assert_no_core()


def _assert_no_core() -> None:
    """W&B's core follows the process that started it."""
    left = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "wandb-core"]
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it goes while it is looked at
            if process.environ().get("PYTEST_CURRENT_TEST") == os.environ.get("PYTEST_CURRENT_TEST"):
                process.wait(20)
