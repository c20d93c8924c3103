"""Where the display of a command goes."""

from __future__ import annotations

import io
import sys

import pytest

from raycls.cli import command


def test_plain_lines_go_to_stdout_and_the_live_display_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.config.sections.track import TrackConfig
    from raycls.screen.run import PlainDisplay, RichDisplay

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(command.display(TrackConfig()), PlainDisplay)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(command.display(TrackConfig()), RichDisplay)
