"""The words of `raycls submit`, before any cluster is asked: what is refused here, and that a dry run is dry."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result
from harness.dashboards import FakeDashboard

CONFIG = "data: {source: {name: digits}}\nmodel: {name: tiny_cnn}\n"


@pytest.fixture(autouse=True)
def project(raycls_command: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that could be sent, below the empty one of `raycls_command`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pets.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_dry_run_shows_everything_and_asks_nobody(
    raycls_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-token")
    with FakeDashboard() as server:
        words = ("--dry-run", "--address", server.address, "--env", "A=b", "--secret", "WANDB_API_KEY")
        done = raycls_command("submit", *words, "--", "train", "pets.yaml", "run.storage=/mnt/runs", "--new")
        assert (done.code, server.seen) == (0, [])
    lines = done.out.splitlines()
    assert f"to         {server.address}" in lines
    assert "command    raycls train pets.yaml run.storage=/mnt/runs --new" in lines
    assert "variable   A=b" in lines
    assert f"  {len(CONFIG)} bytes  pets.yaml" in lines
    assert lines[-1] == "nothing was sent"
    (note,) = [line for line in lines if "RAYCLS_SUBMITTED" in line]
    assert json.loads(note.partition("=")[2])["secrets"] == ["WANDB_API_KEY"]
    assert "canary" not in done.out + done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "pets.yaml"), "run.storage=/a/shared/folder/runs"),
        (("train", "pets.yaml", "run.storage=here"), "command line  run.storage"),
        (("eval", "runs/pets"), "/a/shared/folder/runs/pets"),
        (("train", "pets.yaml", "optim.lrr=1"), "optim.lrr"),
        (("train", "/pets.yaml", "run.storage=/mnt"), "/pets.yaml"),
        (("train", "../other.yaml", "run.storage=/mnt"), "not part of what is sent"),
        (("train", "pets.yaml", "run.storage=/mnt", "--nwe"), "--nwe"),
        (("train",), "CONFIG"),
        (("doctor", "pets.yaml"), "run.storage=/a/shared/folder/runs"),
        (("doctor", "run.storage=here"), "run.storage=/a/shared/folder/here"),
        (("doctor", "../other.yaml", "run.storage=/mnt"), "not part of what is sent"),
        (("doctor", "run.storag=/mnt"), "run.storage"),
        (("demo",), "train, search, eval, doctor"),
        (("rm", "-rf", "/"), "train, search, eval, doctor"),
    ],
)
def test_problems_are_told_before_anything_is_sent(
    raycls_command: Callable[..., Result], words: tuple[str, ...], said: str
) -> None:
    Path("../other.yaml").write_text(CONFIG)
    with FakeDashboard() as server:
        done = raycls_command("submit", "--address", server.address, "--", *words)
        assert (done.code, server.seen) == (2, [])
    assert said in done.err
    assert "Traceback" not in done.err


def test_usage(raycls_command: Callable[..., Result]) -> None:
    assert raycls_command("submit").code == 2
    assert "no cluster is named" in raycls_command("status").err


def test_a_job_is_shown_and_followed(raycls_command: Callable[..., Result]) -> None:
    with FakeDashboard(log="one\ntwo\n", breaks=(5,)) as server:
        found = raycls_command("status", "job", "--address", server.address)
        assert (found.code, found.out) == (0, "RUNNING  raycls train\n")
        found = raycls_command("logs", "job", "--address", server.address)
        assert (found.code, found.out, found.err) == (0, "one\ntwo\n", "job job succeeded\n")
    with FakeDashboard(log="one\n", state="STOPPED") as server:
        assert raycls_command("logs", "job", "--address", server.address).code == 143


def test_the_doctor_goes_as_a_job_by_the_words_of_its_remedy(raycls_command: Callable[..., Result]) -> None:
    rows = "wrong    disk: full\n"
    with FakeDashboard(log=rows, state="FAILED", code=1) as server:
        refused = raycls_command("doctor", "pets.yaml", "run.storage=/mnt", "--address", server.address)
        assert (refused.code, server.seen) == (2, [])
        (fix,) = [line for line in refused.err.splitlines() if "fix:" in line]
        done = raycls_command(*shlex.split(fix.partition("raycls ")[2]))
    assert (done.code, done.out) == (1, rows)
    (sent,) = server.submitted
    assert sent["entrypoint"] == "raycls doctor pets.yaml run.storage=/mnt"
    (packed,) = server.packages
    assert zipfile.ZipFile(io.BytesIO(packed)).namelist() == ["pets.yaml"]


def test_another_ray_is_told_before_anything_is_sent(raycls_command: Callable[..., Result]) -> None:
    words = ("--", "train", "pets.yaml", "run.storage=/mnt/runs")
    with FakeDashboard(version="2.1.0") as server:
        done = raycls_command("submit", "--address", server.address, *words)
    assert done.code == 0
    first, second = done.err.splitlines()[:2]
    assert "ray 2.1.0 (here " in first
    assert second.startswith("sending ")
