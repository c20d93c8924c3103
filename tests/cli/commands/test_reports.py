"""`raycls report` and `curves`: words in, a page or lines out."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
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


def test_a_report_is_written_into_the_run_folder(raycls_command: Callable[..., Result], run: Path) -> None:
    result = raycls_command("report", "shapes")
    assert (result.code, result.out) == (0, f"wrote {run / 'report.html'}\n")
    text = (run / "report.html").read_text()
    assert "<h1><bdi>shapes</bdi>" in text
    assert "data.source.path" in text


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
