"""Bringing lines to a tracker that fails: against a destination made here, with the waits shortened."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from raycls.run.trackers import pump as tracker_pump
from raycls.run.trackers.pump import RefusedError, pump


class _Destination:
    """Fails as often as it is told, and notes what got through."""

    def __init__(self, fails: dict[str, int]) -> None:
        self.fails, self.got = fails, []
        self.past: list[Any] = []
        self.ended: tuple[str, dict[str, Any]] | None = None

    def _maybe(self, what: str) -> None:
        if self.fails.get(what, 0):
            self.fails[what] -= 1
            raise OSError(f"{what} failed at http://anna:secret@host/")

    def open(self, past: list[Any]) -> dict[str, str]:
        self._maybe("open")
        self.past = past
        return {"url": "here"}

    def send(self, records: list[Any]) -> None:
        self._maybe("send")
        if any(record["step"] == 13 for record in records):
            raise RefusedError("not this one")
        self.got += [record["step"] for record in records]

    def end(self, state: str, summary: dict[str, Any]) -> None:
        self._maybe("end")
        self.ended = (state, summary)


def _pump(destination: _Destination, *items: Any) -> list[dict[str, Any]]:
    inbox: queue.Queue[Any] = queue.Queue()
    for item in items:
        inbox.put(item)
    said: list[dict[str, Any]] = []
    pump(destination, lambda: ["past"], inbox, lambda **facts: said.append(facts))
    return said


def _records(*steps: int) -> list[dict[str, Any]]:
    return [{"record": {"step": step}} for step in steps]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_pump, "_FIRST_WAIT", 0.01)


def test_everything_arrives_in_order_and_is_counted() -> None:
    destination = _Destination({})
    said = _pump(destination, *_records(1, 2, 3), {"end": "FINISHED", "summary": {"step": 3}})
    assert (destination.past, destination.got) == (["past"], [1, 2, 3])
    assert destination.ended == ("FINISHED", {"step": 3})
    assert said == [{"url": "here"}, {"delivered": 3}, {"ended": True}]


@pytest.mark.parametrize("what", ["open", "send", "end"])
def test_what_failed_is_tried_again_and_nothing_is_lost(what: str) -> None:
    destination = _Destination({what: 3})
    said = _pump(destination, *_records(1, 2), {"end": "FAILED", "summary": {}})
    assert (destination.got, destination.ended) == ([1, 2], ("FAILED", {}))
    problems = [facts["problem"] for facts in said if "problem" in facts]
    assert problems == [f"OSError: {what} failed at http://***@host/"] * 3


def test_lines_that_cease_are_the_end_of_a_run_that_was_killed() -> None:
    destination = _Destination({})
    _pump(destination, *_records(1), None)
    assert destination.ended == ("KILLED", {})


def test_a_refused_line_is_left_out_and_not_counted() -> None:
    destination = _Destination({})
    said = _pump(destination, *_records(12, 13, 14), {"end": "FINISHED", "summary": {}})
    assert destination.got == [12, 14]
    assert [facts["delivered"] for facts in said if "delivered" in facts] == [2]


def test_what_waits_is_bounded() -> None:
    """While nothing gets through, at most one batch is taken out of the queue: the rest stays where it is counted."""
    destination = _Destination({"open": 3})
    taken: list[int] = []
    inbox: queue.Queue[Any] = queue.Queue()
    for item in [*_records(*range(1000)), {"end": "FINISHED", "summary": {}}]:
        inbox.put(item)

    def say(**facts: Any) -> None:
        if "problem" in facts:
            taken.append(1001 - inbox.qsize())

    thread = threading.Thread(target=pump, args=(destination, list, inbox, say))
    thread.start()
    thread.join(30)
    assert taken == [200, 200, 200, 200]  # the last one is the line that was refused
    assert destination.got == [step for step in range(1000) if step != 13]


def test_the_innermost_reason_is_told() -> None:
    def fail() -> None:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("pages\nof text") from error

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert tracker_pump._told(caught.value) == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert tracker_pump._told(KeyError()) == "KeyError"
