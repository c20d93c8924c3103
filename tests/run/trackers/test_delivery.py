"""Bringing the history of a run to a tracker that fails: a destination made here, with the waits shortened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.object_store import S3

from raycls.run import strict_json
from raycls.run.folder import RunFolder
from raycls.run.trackers import delivery
from raycls.run.trackers.delivery import RefusedError, Tail, deliver


class _Destination:
    """Fails as often as it is told, and notes what got through."""

    def __init__(self, **fails: int) -> None:
        self.fails, self.got = fails, list[float]()
        self.sizes: list[int] = []
        self.ended: tuple[str, dict[str, Any]] | None = None

    def _maybe(self, what: str) -> None:
        if self.fails.get(what, 0):
            self.fails[what] -= 1
            raise OSError(f"{what} failed at http://anna:secret@host/")

    def open(self) -> dict[str, str]:
        self._maybe("open")
        return {"url": "here"}

    def send(self, records: list[Any]) -> None:
        self._maybe("send")
        if any(record["step"] == 13 for record in records):
            raise RefusedError("not this one")
        self.sizes.append(len(records))
        self.got += [record["loss"] for record in records]

    def end(self, state: str, summary: dict[str, Any]) -> None:
        self._maybe("end")
        self.ended = (state, summary)


class _Tail(Tail):
    """A run that ends as soon as it is asked, or later; `gone` with its process."""

    ending: tuple[str, dict[str, Any]] | None = ("FINISHED", {"step": 3})
    gone = False

    def end(self) -> tuple[str, dict[str, Any]] | None:
        return self.ending

    def _is_gone(self) -> bool:
        return self.gone


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_WAIT", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path)
    made.write_json(made.TRACKERS, {"id": "abc"})
    return made


def _write(folder: RunFolder, *steps: int, attempt: int = 1, loss: float | None = None) -> None:
    records = [
        {"kind": "train", "attempt": attempt, "step": step, "loss": step if loss is None else loss} for step in steps
    ]
    folder.store.append_lines(folder.HISTORY, [strict_json.dumps(record) for record in records])


def _tail(folder: RunFolder, attempt: int = 1) -> _Tail:
    return _Tail({"folder": folder.uri, "id": "abc", "attempt": attempt}, 1)


def _deliver(tail: Tail, destination: _Destination) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    deliver(tail, lambda: destination, lambda **facts: said.append(facts))
    return said


def test_everything_arrives_in_order_and_is_counted(folder: RunFolder) -> None:
    _write(folder, 1, 2, 3)
    destination = _Destination()
    assert _deliver(_tail(folder), destination) == [{"url": "here"}, {"delivered": 3}, {"ended": True}]
    assert destination.got == [1, 2, 3]
    assert destination.ended == ("FINISHED", {"step": 3})


@pytest.mark.parametrize("what", ["open", "send", "end"])
def test_what_failed_is_tried_again_and_nothing_is_lost(what: str, folder: RunFolder) -> None:
    _write(folder, 1, 2)
    destination = _Destination(**{what: 3})
    said = _deliver(_tail(folder), destination)
    assert (destination.got, destination.ended) == ([1, 2], ("FINISHED", {"step": 3}))
    problems = [facts["problem"] for facts in said if "problem" in facts]
    assert problems == [f"OSError: {what} failed at http://***@host/"]  # told once, and no secret
    assert said[-2:] == [{"delivered": 2}, {"ended": True}] or what == "end"


def test_lines_are_read_as_they_come_and_a_torn_one_when_it_is_whole(folder: RunFolder) -> None:
    tail = _tail(folder)
    assert tail.read(10) == []
    _write(folder, 1, 2, 3)
    assert [record["step"] for record in tail.read(2)] == [1, 2]
    with open(folder.path(folder.HISTORY) or "", "a") as file:
        file.write('{"kind": "train", "attempt": 1, "step": 4, ')
    assert [record["step"] for record in tail.read(10)] == [3]
    with open(folder.path(folder.HISTORY) or "", "a") as file:
        file.write('"loss": "nan"}\n')
    (record,) = tail.read(10)
    assert record["step"] == 4 and record["loss"] != record["loss"]  # NaN, as it was given


def test_in_a_remote_store_lines_are_seen_when_they_were_flushed(s3: S3) -> None:
    folder = RunFolder(s3.uri("runs/x"))
    tail = _tail(folder)
    _write(folder, 1, 2)
    assert tail.read(10) == []
    folder.store.flush()
    assert [record["step"] for record in tail.read(10)] == [1, 2]
    _write(folder, 3)
    folder.store.flush()
    assert [record["step"] for record in tail.read(10)] == [3]


def test_a_later_start_brings_what_led_to_it_and_counts_its_own(folder: RunFolder) -> None:
    """Attempt 1 did steps 1 to 4, attempt 2 resumed from step 3; attempt 3, from 4, is another process's."""
    folder.begin_attempt(0, 1)
    folder.begin_attempt(3, 1)
    _write(folder, 1, 2, 3, 4)
    _write(folder, 4, attempt=2, loss=0.25)
    _write(folder, 5, attempt=3)
    destination = _Destination()
    assert {"delivered": 1} in _deliver(_tail(folder, 2), destination)
    assert destination.got == [1, 2, 3, 0.25]


@pytest.mark.parametrize("why", ["a later start", "another run"])
def test_a_process_whose_run_is_gone_leaves_the_word_to_its_successor(why: str, folder: RunFolder) -> None:
    folder.begin_attempt(0, 1)
    _write(folder, 1)
    tail = _tail(folder)
    tail.ending, tail.gone = ("KILLED", {}), True
    destination = _Destination()
    if why == "a later start":
        folder.begin_attempt(0, 1)
    else:
        folder.write_json(folder.TRACKERS, {"id": "other"})
    assert _deliver(tail, destination) == []
    assert (destination.got, destination.ended) == ([], None)


def test_a_refused_line_is_left_out_and_not_counted(folder: RunFolder) -> None:
    _write(folder, 12, 13, 14)
    destination = _Destination()
    said = _deliver(_tail(folder), destination)
    assert destination.got == [12, 14]
    assert [facts["delivered"] for facts in said if "delivered" in facts] == [2]


def test_what_is_sent_at_once_is_bounded(folder: RunFolder) -> None:
    _write(folder, *range(100, 600))
    destination = _Destination()
    _deliver(_tail(folder), destination)
    assert destination.sizes == [200, 200, 100]
    assert destination.got == [*range(100, 600)]


def test_the_innermost_reason_is_told() -> None:
    def fail() -> None:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("pages\nof text") from error

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert delivery._told(caught.value) == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert delivery._told(KeyError()) == "KeyError"
