"""`raycls data`: what is typed, what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result
from harness.planted import picture, plant
from PIL import Image

Command = Callable[..., Result]


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for number, label in enumerate("ab" * 8):
        (tmp_path / "p" / label).mkdir(parents=True, exist_ok=True)
        picture(number).save(tmp_path / "p" / label / f"{number:02}.png")
    (tmp_path / "c.yaml").write_text("data: {source: {path: p}, image_size: 8, batch_size: 4}\n")
    return tmp_path


def test_a_clean_set_has_a_table_and_exit_code_0(clean: Path, raycls_command: Command) -> None:
    told = raycls_command("data", "check", "c.yaml")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0].split() == ["split", "images", "classes", "largest", "smallest"]
    assert lines[1].split()[:3] == ["train", "11", "2"]
    assert [line.split()[-1] for line in lines if line.startswith(("unreadable", "near", "exact", "in two"))] == [
        "none"
    ] * 4
    assert lines[-1] == "wrote data-check.html and data-check.json"
    facts = json.loads((clean / "data-check.json").read_text())
    assert facts["clean"]
    assert facts["images"] == 16
    assert sorted(os.listdir(clean)) == ["c.yaml", "data-check.html", "data-check.json", "p"]


def test_a_planted_set_has_exit_code_3_and_the_manifest_trains(tmp_path: Path, raycls_command: Command) -> None:
    plant(tmp_path / "p", each=26)
    (tmp_path / "c.yaml").write_text("data: {source: {path: p}, image_size: 8, batch_size: 8}\n")
    before = {file: file.read_bytes() for file in (tmp_path / "p").rglob("*.*")}
    told = raycls_command("data", "check", "c.yaml", "--out", "found.html", "--write", "m.csv")
    assert told.code == 3, told.err
    assert "unreadable        9 images  <- look at it" in told.out
    assert "near duplicates   18 pairs: 6 mirrored, 6 re-encoded, 6 resized  <- look at it" in told.out
    assert "in two splits     5 pictures  <- look at it" in told.out
    assert "left out: 9 unreadable, 6 under two labels, 35 duplicates" in told.out
    assert {file: file.read_bytes() for file in (tmp_path / "p").rglob("*.*")} == before
    line = next(line for line in told.out.splitlines() if line.startswith("train from it with "))
    words = line.removeprefix("train from it with ").split()
    assert ">train/a/" in (tmp_path / "found.html").read_text()
    again = raycls_command("data", "check", "c.yaml", *words, "--json")
    assert again.code == 0
    facts = json.loads(again.out)
    assert facts["images"] == json.loads((tmp_path / "data-check.json").read_text())["images"] == 106 - 35 - 6 - 9
    assert raycls_command("config", "c.yaml", *words).code == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("--out found.png", 2, "the findings are an HTML file"),
        ("--write m.parquet", 2, "a manifest cannot be written in this form"),
        ("--run nobody", 2, "there is no run nobody"),
        ("data.source.path=nowhere", 3, "cannot read the data folder"),
    ],
)
def test_what_cannot_be_done_is_said_first(
    clean: Path, raycls_command: Command, words: str, code: int, told: str
) -> None:
    found = raycls_command("data", "check", "c.yaml", *words.split())
    assert (found.code, told in found.err) == (code, True), found.err
    assert sorted(os.listdir(clean)) == ["c.yaml", "p"]


def test_a_manifest_that_could_not_be_trained_on_leaves_the_old_one(clean: Path, raycls_command: Command) -> None:
    for file in (clean / "p/a").iterdir():
        file.write_bytes(b"")
    (clean / "m.csv").write_text("mine")
    found = raycls_command("data", "check", "c.yaml", "--write", "m.csv")
    assert found.code == 3
    assert "fewer than two classes" in found.err
    assert (clean / "m.csv").read_text() == "mine"
    assert sorted(os.listdir(clean)) == ["c.yaml", "data-check.html", "data-check.json", "m.csv", "p"]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_check_that_is_killed_leaves_no_half_file(clean: Path, end: signal.Signals) -> None:
    for number in range(150):
        Image.effect_noise((300, 300), 80).save(clean / "p" / "ab"[number % 2] / f"n{number}.png")
    command = [sys.executable, "-m", "raycls", "data", "check", "c.yaml", "--write", "m.csv"]
    with subprocess.Popen(command, cwd=clean, start_new_session=True) as ended:
        while len(_of_group(ended.pid)) < 4:  # the server that forks, what tracks for it, and one that decodes
            assert ended.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        ended.send_signal(end)
    assert ended.returncode in (-end, 130)
    deadline = time.monotonic() + 30
    while _of_group(ended.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _of_group(ended.pid) == []
    assert sorted(os.listdir(clean)) == ["c.yaml", "p"]


def _of_group(group: int) -> list[int]:
    """Processes that are left of a session."""
    left = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(entry)) == group:
                left.append(int(entry))
        except ProcessLookupError:
            continue
    return left
