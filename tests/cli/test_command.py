"""Where the display of a command goes."""

from __future__ import annotations

import sys

import pytest
from harness.streams import Terminal

from raycls.cli import command
from raycls.config.sections.track import TrackConfig


def test_plain_lines_go_to_stdout_and_the_live_display_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not command.display(TrackConfig()).is_live
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert command.display(TrackConfig()).is_live
