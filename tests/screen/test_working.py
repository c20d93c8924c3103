from __future__ import annotations

import io
import time

import pytest
from harness.terminals import Pseudoterminal

from raycls.progress import Progress, counted, listening, progress
from raycls.screen.working import Working


def test_a_command_without_a_display_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with Pseudoterminal() as terminal, Working("looking at photos", terminal.stream) as working:
        time.sleep(1.5)
        progress("looking at the files", 1000, unit="files")
        time.sleep(1.5)
        working.close()
        time.sleep(0.6)  # a tick later it has not come back
    screens = [screen for _, screen in terminal.seen]
    assert next(filter(None, screens)).strip(" |/-\\\n") == "looking at photos"
    assert any("looking at the files: 1,000 files" in screen for screen in screens)
    assert len(set(screens)) >= 5
    assert terminal.page.text.strip() == "" and terminal.page.cursor


def test_what_is_over_at_once_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with Pseudoterminal() as terminal, Working("reading", terminal.stream):
        pass
    assert terminal.seen == []


def test_plain_lines_come_after_half_a_minute() -> None:
    now, stream = [1000.0], io.StringIO()
    working = Working("packing", stream, clock=lambda: now[0])
    with working:
        for second in (29.0, 31.0, 59.0, 62.0):
            now[0] = 1000.0 + second
            working.tick()
    assert stream.getvalue().splitlines() == ["packing for 31 s", "packing for 0:01:02"]


def test_the_innermost_listener_hears_it_and_nobody_is_needed() -> None:
    progress("said to nobody")
    outer, inner = list[Progress](), list[Progress]()
    with listening(outer.append):
        progress("first")
        with listening(inner.append):
            progress("second", 1, 2, "files")
        assert list(counted("ab", "third")) == ["a", "b"]
    assert outer == [Progress("first"), Progress("third", 0), Progress("first")]
    assert inner == [Progress("second", 1, 2, "files")]


def test_counting_changes_nothing_and_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    now = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: 0.1 * next(now))
    with listening(heard.append):
        progress("opening the data")
        assert list(counted(range(7), "reading", 7, "rows")) == list(range(7))
    # a look every tenth of a second, said after two of them
    assert [one.done for one in heard[1:-1]] == [0, 2, 4, 6]
    assert heard[-1] == heard[0] == Progress("opening the data")
