"""`raycls doctor` on a cluster of two nodes: well, open, frozen; and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.clusters import joined, standing, state
from harness.processes import Command, raycls
from harness.runs import Foreign

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.faults, pytest.mark.timeout(900)]

CONFIG = """
data: {source: {name: digits, path: images}, batch_size: 64, image_size: 8}
augment: {train: [{center_crop: {size: 8}}], eval: [{center_crop: {size: 8}}]}
model: {name: tiny_cnn, args: {width: 8}}
train: {duration: 3ep}
scale: {workers: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "digits.yaml").write_text(CONFIG)
    return tmp_path


def examine(folder: Path, *words: str, env: dict[str, str], name: str) -> tuple[int, dict[str, Any], Command]:
    before = sorted(folder.iterdir())
    with raycls(folder, "doctor", "--json", *words, name=name, env=env) as command:
        code = command.wait(400)
        command.assert_gone(10)
    left = [path.name for path in folder.iterdir() if path not in before and path.suffix not in (".out", ".err")]
    assert not left
    assert not list(Path("/tmp").glob(f"raycls-{command.process.pid}-*"))
    assert command.stdout, command.said()
    rows = json.loads(command.stdout)["raycls_doctor"]["rows"]
    assert json.loads(command.stdout)["raycls_doctor"]["exit_code"] == code
    return code, {row["name"]: row for row in rows}, command


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_two_nodes_well_then_one_frozen_then_the_head(folder: Path) -> None:
    with standing(2) as cluster, joined(cluster, 1) as node:
        names = well(folder, cluster)
        raylet = next(process for process in node.processes() if process.name() == "raylet")
        with stopped(raylet):
            one_frozen(folder, cluster, names)
        gcs = next(process for process in cluster.head.processes() if process.name() == "gcs_server")
        with stopped(gcs):
            code, rows, _ = examine(folder, "--timeout", "10", env=cluster.environment, name="headless")
        assert (code, list(rows)) == (1, ["cluster"])
        assert "does not answer within 70 s" in rows["cluster"]["found"]  # a minute to start, and the deadline


def well(folder: Path, cluster: Foreign) -> list[str]:
    code, rows, _ = examine(folder, "digits.yaml", env=cluster.environment, name="well")
    assert code == 0
    names: list[str] = rows["nodes"]["facts"]["nodes"]
    assert len(names) == 2
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts.pop("data") == "warning"  # the source would write the images on one of the two nodes
    verdicts.pop("all-reduce")  # as fast as this machine happens to be
    assert set(verdicts.values()) == {"ok"}, rows
    assert set(rows["all-reduce"]["facts"]["megabytes_per_second"]) == set(names)
    assert set(rows["storage"]["facts"]["replies"]) == set(names)
    assert rows["time"]["facts"]["batch"] == 32  # one of two workers' part of 64
    now = state(cluster.environment)
    assert now["available"]["CPU"] == now["total"]["CPU"] == 3
    assert not now["groups"]
    cluster.assert_idle()
    return names


def one_frozen(folder: Path, cluster: Foreign, names: list[str]) -> None:
    code, rows, _ = examine(folder, "digits.yaml", "--timeout", "25", env=cluster.environment, name="frozen")
    assert code == 1
    assert rows["nodes"]["verdict"] == "wrong"
    assert rows["nodes"]["facts"]["silent"].keys() == {names[1]}
    for name in ("versions", "gpus", "all-reduce", "shared memory", "disk", "storage"):
        assert rows[name]["verdict"] == "unknown", rows[name]
        assert rows[name]["fix"]
    assert rows["working directory"]["verdict"] == "ok"


def test_the_driver_s_own_node_is_frozen(folder: Path) -> None:
    with standing(1) as cluster:
        raylet = next(process for process in cluster.head.processes() if process.name() == "raylet")
        with stopped(raylet):
            code, rows, _ = examine(folder, "--timeout", "15", env=cluster.environment, name="own")
        assert (code, list(rows)) == (1, ["cluster"])
        assert rows["cluster"]["verdict"] == "wrong"


def test_as_a_job_through_the_dashboard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a job's command is looked for where the head was started
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with standing(2, dashboard=True) as cluster:
        secrets = {name: value for name, value in cluster.environment.items() if name.startswith("RAY_AUTH")}
        env = {**secrets, "RAY_ADDRESS": "", "RAY_API_SERVER_ADDRESS": cluster.dashboard}
        words = ["digits.yaml", f"run.storage={folder / 'runs'}"]
        (folder / ".rayignore").write_text("*.out\n*.err\n")
        with raycls(folder, "submit", "--", "doctor", *words, "--json", name="job", env=env) as command:
            assert command.wait(400) == 0, command.said()
        (line,) = [line for line in command.stdout.splitlines() if "raycls_doctor" in line]
        rows = {row["name"]: row for row in json.loads(line)["raycls_doctor"]["rows"]}
        assert rows["storage"]["verdict"] == "ok", rows["storage"]
        assert rows["time"]["verdict"] == "ok", rows["time"]
        with raycls(folder, "submit", "--", "doctor", *words, "scale.device=cuda", name="wrong", env=env) as command:
            assert command.wait(400) == 1, command.said()
        assert "wrong    gpus: none, and scale.device is cuda" in command.stdout
        cluster.assert_idle()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(folder: Path, number: signal.Signals, code: int) -> None:
    (folder / "slow.py").write_text("import time\ndef wait():\n    return lambda image: time.sleep(1) or image\n")
    words = ["digits.yaml", 'augment.train=["slow:wait"]', "scale.workers=1"]
    with raycls(folder, "doctor", *words, env={"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": ""}) as command:
        command.until(lambda: "fit:" in command.stdout, 200)
        command.until(lambda: bool(list(Path("/tmp").glob(f"raycls-{command.process.pid}-doctor*"))), 60)
        command.process.send_signal(number)
        assert command.wait(90) == code, command.said()
        command.assert_gone(10)
    assert not command.leftovers()
    assert {path.name for path in folder.iterdir()} <= {
        "digits.yaml",
        "slow.py",
        "raycls.out",
        "raycls.err",
        "__pycache__",
    }
    assert "Traceback" not in command.stderr
