"""Where the display of a command goes, and a file that `--out` names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result
from harness.streams import Terminal

from raycls.cli import command
from raycls.config.sections.track import TrackConfig
from raycls.errors import ConfigError


def test_plain_lines_go_to_stdout_and_the_live_display_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not command.display(TrackConfig()).is_live
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert command.display(TrackConfig()).is_live


def test_a_file_that_out_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "old.svg").write_text("replaced later")
    for out in ("~/new.svg", "~/old.svg", "~/NEW.SVG"):
        assert command.out_file(out, ".svg", "it is an SVG file") == tmp_path / out[2:]


@pytest.mark.parametrize(
    ("out", "what", "valid"),
    [
        ("x.png", "it is an SVG file", "ends in .svg"),
        ("x", "it is an SVG file", "ends in .svg"),
        ("no/x.svg", "there is no folder no", "in a folder that is there"),
        ("old.svg/x.svg", "there is no folder old.svg", "in a folder that is there"),
        ("folder.svg", "there is a folder of this name", "a file"),
    ],
)
def test_a_file_that_cannot_be_written(
    out: str, what: str, valid: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.svg").touch()
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(ConfigError) as caught:
        command.out_file(out, ".svg", "it is an SVG file")
    assert (caught.value.what, caught.value.where, caught.value.found) == (what, "--out", out)
    assert valid in str(caught.value.valid)


@pytest.mark.parametrize(("name", "suffix"), [("augment", ".png"), ("lr-find", ".svg")])
def test_a_command_looks_at_its_file_before_its_config(
    name: str, suffix: str, raycls_command: Callable[..., Result], tmp_path: Path
) -> None:
    for out, fragment in (("x.jpg", f"ends in {suffix}"), (f"no/x{suffix}", "there is no folder no")):
        result = raycls_command(name, "none.yaml", "--out", out)
        assert (result.code, fragment in result.err) == (2, True)
    (tmp_path / f"x{suffix}").mkdir()
    result = raycls_command(name, "none.yaml", "--out", f"x{suffix}")
    assert (result.code, "there is a folder of this name" in result.err) == (2, True)
