"""Digits, killed and resumed, told to a real MLflow server on loopback."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.processes import Command, raycls, start, titled

_CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
_SERVES = ("flask", "flask_cors", "alembic", "sqlalchemy", "fastapi", "uvicorn")
"""What `mlflow server` needs beside mlflow-skinny. Of the packages for the tests, moto and Optuna bring these."""

pytestmark = [pytest.mark.nightly, pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server: of these packages where they suffice, else in an environment that uv makes."""
    folder = tmp_path_factory.mktemp("mlflow")
    missing = [name for name in _SERVES if importlib.util.find_spec(name) is None]
    words = [sys.executable, "-m", "mlflow"]
    if missing:
        if shutil.which("uv") is None:
            pytest.skip(f"`mlflow server` needs {', '.join(missing)}, or uv to install mlflow beside these packages")
        words = ["uv", "run", "--isolated", "--no-project", "--with", "mlflow", "mlflow"]
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{opened.getsockname()[1]}"
    words += ["server", "--host", "127.0.0.1", "--port", address.partition(":")[2], "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "files")]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with start(words, folder, name="mlflow", env=environment) as command:
        command.until(lambda: _answers(f"http://{address}/health"), 240)
        yield f"http://{address}"


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def _ask(server: str, path: str, **body: Any) -> dict[str, Any]:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _runs(server: str, experiment: str) -> list[dict[str, Any]]:
    known = _ask(server, f"experiments/get-by-name?experiment_name={experiment}")["experiment"]["experiment_id"]
    return _ask(server, "runs/search", experiment_ids=[known], max_results=100).get("runs", [])


def _points(server: str, run: dict[str, Any], name: str) -> list[tuple[int, float]]:
    found = _ask(server, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={name}")
    return [(int(point["step"]), float(point["value"])) for point in found["metrics"]]


def _pairs(items: list[dict[str, str]]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in items}


def _step(folder: Path) -> int:
    file = folder / "history.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def _kill_midway(command: Command, folder: Path) -> None:
    command.until(lambda: _step(folder) >= 130 and (folder / "checkpoints" / "step-00000100").exists(), 400)
    command.kill_all()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.ray)])
def test_digits_killed_and_resumed_are_one_run_with_every_step(workers: int, server: str, tmp_path: Path) -> None:
    """20 steps per epoch, 15 epochs, a line every 10 steps, an evaluation every 60; SIGKILL after step 130."""
    folder, experiment = tmp_path / "runs" / "digits", f"digits-{workers}"
    words = ("train", str(_CONFIG), f"scale.workers={workers}", f"track.mlflow.uri={server}")
    words += (f"track.mlflow.experiment={experiment}",)
    private = {"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": ""}
    with raycls(tmp_path, *words, env=private) as command:
        _kill_midway(command, folder)
    with raycls(tmp_path, *words, env=private) as command:
        assert command.wait(300) == 0, command.said()
        assert f"MLflow: {server}/#/experiments/" in command.stdout
        assert "warning: MLflow" not in command.said()
        command.assert_gone(20)
        assert not titled(command.processes(), "trackers.process")
    first, second = [json.loads(line)["step"] for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert (first, second) in [(0, 100), (0, 120)]  # the evaluation at 120 is saved if it is the best one
    (run,) = _runs(server, experiment)
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "digits")
    losses = _points(server, run, "train/loss")
    assert sorted({step for step, _ in losses}) == list(range(10, 301, 10))
    assert len(losses) == len(set(losses)) == 30  # what was trained twice came out the same, and is there once
    assert [step for step, _ in sorted(_points(server, run, "val/top1"))] == [60, 120, 180, 240, 300]
    parameters, tags = _pairs(run["data"]["params"]), _pairs(run["data"]["tags"])
    assert (parameters["optim.lr"], parameters["model.args.width"], parameters["data.split.train"]) == (
        "0.1",
        "48",
        "0.7",
    )
    assert tags["raycls.run"] == json.loads((folder / "trackers.json").read_text())["id"]
    assert float(tags["raycls.best.value"]) > 0.9


@pytest.mark.ray
def test_trials_of_a_search_are_runs_under_one_heading(server: str, tmp_path: Path) -> None:
    words = ("search", str(_CONFIG), "run.name=hunt", "scale.workers=1", "train.duration=1ep", "evaluate.every=1ep")
    words += ("search.space={optim.lr: [0.1, 0.2, 0.3]}", "search.algorithm=grid", "search.trials=3")
    words += ("search.scheduler.name=none", f"track.mlflow.uri={server}", "track.mlflow.experiment=hunts")
    with raycls(tmp_path, *words, env={"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": ""}) as command:
        assert command.wait(400) == 0, command.said()
    runs = {run["info"]["run_name"]: run for run in _runs(server, "hunts")}
    heading = runs.pop("hunt")
    assert sorted(runs) == ["hunt/0001", "hunt/0002", "hunt/0003"]
    for run in runs.values():
        tags = _pairs(run["data"]["tags"])
        assert (run["info"]["status"], tags["raycls.search"]) == ("FINISHED", "hunt")
        assert tags["mlflow.parentRunId"] == heading["info"]["run_id"]
    assert sorted(_pairs(run["data"]["params"])["optim.lr"] for run in runs.values()) == ["0.1", "0.2", "0.3"]
