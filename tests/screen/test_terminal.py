"""What every display does with its stream, whatever it shows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from harness.streams import Gone, Terminal

from raycls.screen.run import Display
from raycls.screen.search import SearchDisplay
from raycls.screen.terminal import Screen
from raycls.screen.working import Working

KINDS = [Display, SearchDisplay, lambda stream: Working("looking", stream)]


class _Shown(io.TextIOWrapper):
    """A terminal with a file behind it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("kind", KINDS)
def test_a_terminal_that_moves_its_cursor_is_live(kind: type[Screen], monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind(Terminal()).is_live
    assert not kind(io.StringIO()).is_live
    monkeypatch.setenv("TERM", "dumb")
    assert not kind(Terminal()).is_live


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_pipe_silences_the_display_and_nothing_else(kind: type[Screen]) -> None:
    stream = Gone()
    with kind(stream) as screen:
        screen.lines("one", "two")
        screen.lines("three")
    assert stream.tries == 1


@pytest.mark.parametrize("kind", [Display, SearchDisplay])
def test_the_terminal_is_given_back_after_an_error(kind: type[Screen]) -> None:
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt), kind(terminal):
        raise KeyboardInterrupt
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l") >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_ends_at_once_shows_the_cursor_again(kind: type[Screen], tmp_path: Path) -> None:
    with _Shown((tmp_path / "screen").open("wb")) as stream:
        kind(stream).abandon()
        assert (tmp_path / "screen").read_bytes() == b"\x1b[?25h\n"  # before the stream is flushed
    with kind(Terminal()) as screen:
        screen.abandon()  # no descriptor, no error


def test_a_live_line_is_no_markup_and_a_closed_screen_does_not_come_back() -> None:
    terminal = Terminal()
    with Display(terminal) as screen:
        screen.lines("worker 1 was lost [2 left]")
        screen.close()
        before = terminal.getvalue()
        screen.tick()
        assert terminal.getvalue() == before
    assert "worker 1 was lost [2 left]" in before
