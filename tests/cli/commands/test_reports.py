"""`raycls report` and `curves`: words in, a page or lines out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result


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
