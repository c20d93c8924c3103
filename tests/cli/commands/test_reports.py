"""`raycls report` and `curves`: words in, a page or lines out."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from harness.command_line import Result
from harness.processes import raycls


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one's own, `runs/shapes` below the working directory of the command."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "shapes"


def test_curves_are_drawn_without_colour_where_nobody_sees_it(raycls_command: Callable[..., Result], run: Path) -> None:
    result = raycls_command("curves", "shapes", "--width", "80")
    lines = result.out.splitlines()
    assert result.code == 0
    assert lines[0] == "shapes: done"
    assert "\x1b" not in result.out
    assert [line.split("  ")[0] for line in lines if "validation" in line] == ["loss", "accuracy"]
    assert max(map(len, lines)) <= 80
    assert sum(line.count("●") for line in lines) == 2 + 2 * 6  # the keys, and six evaluations in each chart


def test_curves_of_a_run_without_records(raycls_command: Callable[..., Result], run: Path) -> None:
    (run / "history.jsonl").unlink()
    (run / "result.json").unlink()
    assert raycls_command("curves", "shapes").out == "shapes: not finished\nnothing was measured yet\n"


def test_curves_of_several_runs_share_the_charts(raycls_command: Callable[..., Result], run: Path) -> None:
    other = run.with_name("other")
    shutil.copytree(run, other)
    text = (run / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("name: shapes", "name: other"))
    (other / "result.json").unlink()
    result = raycls_command("curves", "shapes", "other", "--width", "80")
    lines = result.out.splitlines()
    assert (result.code, lines[:2]) == (0, ["shapes: done", "other: not finished"])
    key = "● shapes  ○ other"
    assert [line for line in lines if "shapes" in line][1:] == [f"loss  {key}", f"accuracy  {key}"]
    assert sum(line.count("○") for line in lines) == 2 + 2 * 6  # the same values: the later one is in front
    twice = raycls_command("curves", "shapes", str(run), "--width", "80").out.splitlines()
    assert twice[:2] == [f"{run}: done"] * 2  # runs of one name are told apart by their folders


def test_a_report_is_written_into_the_run_folder(raycls_command: Callable[..., Result], run: Path) -> None:
    result = raycls_command("report", "shapes")
    assert (result.code, result.out) == (3, f"wrote {run / 'report.html'}\n")  # its images are elsewhere
    text = (run / "report.html").read_text()
    assert "<h1><bdi>shapes</bdi>" in text
    assert "data.source.path" in text


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    """As `run`, with its images."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "shapes"


def test_a_run_that_still_trains_is_reported_with_the_weights_that_are_asked_for(
    raycls_command: Callable[..., Result], here: Path
) -> None:
    shutil.rmtree(here / "model")
    (here / "result.json").unlink()
    before = raycls_command("report", "shapes")
    assert (before.code, before.out) == (2, f"wrote {here / 'report.html'}\n")
    assert "the page has no evaluation: this run has no finished model" in before.err
    fix = before.err.rpartition("; or ")[2].split()
    assert fix == ["--weights", "best"]
    assert "Not evaluated" in (here / "report.html").read_text()
    step = json.loads((here / "best.json").read_text())["step"]
    after = raycls_command("report", "shapes", *fix)
    assert (after.code, after.out) == (0, f"wrote {here / 'report.html'}\n")
    assert f"weights best, step {step}." in (here / "report.html").read_text()
    last = raycls_command("report", "shapes", "--weights", "last")  # no evaluation of others will do
    assert last.code == 0
    assert "weights last, step 30." in (here / "report.html").read_text()
    assert "evaluating" not in raycls_command("report", "shapes", "--weights", "best").err  # it is there already
    assert f"weights best, step {step}." in (here / "report.html").read_text()


def test_options_of_a_report_are_those_of_its_evaluation(
    raycls_command: Callable[..., Result], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_ray(*words: object, **more: object) -> None:
        raise RuntimeError("no Ray in this test")

    monkeypatch.setattr(ray, "init", no_ray)
    text = (here / "config.yaml").read_text()
    (here / "config.yaml").write_text(text.replace("workers: 0", "workers: 1"))
    started = raycls_command("report", "shapes", "scale.workers=1")
    assert (started.code, "no Ray in this test" in started.err) == (1, True)
    moved = here.parents[1] / "photos"
    moved.rename(moved.with_name("moved"))
    words = ("scale.workers=0", "data.source.path=moved")
    result = raycls_command("report", "shapes", *words)
    assert (result.code, result.out) == (0, f"wrote {here / 'report.html'}\n")
    assert "data:image/" in (here / "report.html").read_text()  # pictures are where the images are
    refused = raycls_command("report", "shapes", "optim.lr=3")
    assert (refused.code, "optim.lr" in refused.err) == (2, True)
    assert raycls_command("report", *words).code == 2


def test_a_card_that_is_there_is_kept(raycls_command: Callable[..., Result], trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "shapes"
    first = raycls_command("report", "shapes", "--card")
    assert first.out == f"wrote {run / 'report.html'}\nwrote {run / 'model_card.md'}\n"
    assert "## Intended use" in (run / "model_card.md").read_text()
    (run / "model_card.md").write_text("mine")
    assert "which may have been edited" in raycls_command("report", "shapes", "--card").out
    assert (run / "model_card.md").read_text() == "mine"
    beside = raycls_command("report", "shapes", "--card", "--out", "page.html")
    assert beside.out == "wrote page.html\nwrote model_card.md\n"
    assert (tmp_path / "model_card.md").read_text().startswith("---\nlibrary_name: raycls\n")


def test_live_ends_with_ctrl_c_and_gives_the_port_back(trained: Path, tmp_path: Path) -> None:
    with raycls(trained, "report", "shapes", "--live", name=f"{tmp_path.name}-live") as command:
        command.until(lambda: "Ctrl-C" in command.stdout, 60)
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\S+/", command.stdout)
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=10) as answer:
            assert b"<h1><bdi>shapes</bdi>" in answer.read()
        command.process.send_signal(signal.SIGINT)
        assert command.wait(20) == 0, command.said()
    assert "Traceback" not in command.said()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the next page does
        other.bind(("127.0.0.1", int(found[1])))


def test_one_run_is_followed_at_a_time(raycls_command: Callable[..., Result], run: Path) -> None:
    result = raycls_command("report", "shapes", "shapes", "--live")
    assert (result.code, "one run at a time is followed" in result.err) == (2, True)


def test_a_run_that_is_not_there_is_told(raycls_command: Callable[..., Result], run: Path) -> None:
    for command in ("report", "curves"):
        result = raycls_command(command, "shape")
        assert result.code == 2
        assert "did you mean shapes?" in result.err
