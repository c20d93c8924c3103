"""From the history of a run to a tracker that may be down, slow, or wrong about it, until all is there."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raycls.config.uri_secrets import hidden
from raycls.run import history
from raycls.run.folder import RunFolder, parse_line

__all__ = ["Destination", "Record", "RefusedError", "Tail", "deliver", "words"]

_BATCH = 200
_LOOK_SECONDS, _REMOTE_LOOK_SECONDS = 0.5, 10.0
"""Seconds between two looks at the history, on a disk and in a remote store."""
_END_LOOK_SECONDS = 0.1
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0
"""Seconds between two tries."""

Record = dict[str, Any]


class RefusedError(Exception):
    """The tracker will not take these lines, however often they are sent."""


class Destination(Protocol):
    """A tracker. Every method may raise anything, and is then called again with the same arguments."""

    def open(self) -> dict[str, str]:
        """Find or make the run. Returns what the user is told: `url`, `remedy`."""
        ...

    def send(self, records: list[Record]) -> None:
        """Bring it what it lacks of these. RefusedError where there is no use in trying again."""
        ...

    def end(self, state: str, summary: dict[str, Any]) -> None:
        """The run is FINISHED, FAILED or KILLED."""
        ...


def deliver(run: Tail, make: Callable[[], Destination], say: Callable[..., None]) -> None:
    """Bring all that `run` records to a tracker, in order, and try again where that fails, until the end."""
    if run.is_superseded():
        return
    destination = make()
    opened, delivered, wait, problem = False, 0, _FIRST_WAIT, ""
    pending: list[Record] = []
    while True:
        try:
            end = run.end()
            if end is not None and run.is_superseded():
                return
            if not opened:
                say(**destination.open())
                opened = True
            pending = pending or run.read(_BATCH)
            if pending:
                delivered += sum(record.get("attempt") == run.attempt for record in _send(destination, pending, say))
                pending = []
                say(delivered=delivered)
            elif end is not None:
                destination.end(*end)
                say(ended=True)
                return
            else:
                run.sleep(run.pause)
            wait, problem = _FIRST_WAIT, ""
        except Exception as error:  # noqa: BLE001 - whatever a tracker's library or the storage raises
            if problem != (problem := _told(error)):
                say(problem=problem)
            run.sleep(wait)
            wait = min(_LONGEST_WAIT, wait * 2)


def _send(destination: Destination, records: list[Record], say: Callable[..., None]) -> list[Record]:
    """The records that were taken."""
    try:
        destination.send(records)
    except RefusedError as error:
        if len(records) > 1:  # one of them is at fault, not all
            return [taken for record in records for taken in _send(destination, [record], say)]
        say(problem=_told(error))
        return []
    return records


def _told(error: BaseException) -> str:
    """The innermost reason, in one line: libraries wrap what the socket said into pages of text."""
    reasons = [error]
    while (cause := reasons[-1].__cause__ or reasons[-1].__context__) is not None and cause not in reasons:
        reasons.append(cause)
    lines = str(reasons[-1]).strip().splitlines()
    return hidden(f"{type(reasons[-1]).__name__}: {lines[0]}" if lines else type(reasons[-1]).__name__)


class Tail:
    """The history of a run, from the start to what is written while this process reads."""

    def __init__(self, settings: Mapping[str, Any], process: int) -> None:
        folder = RunFolder(settings["folder"])
        self.attempt: int = settings["attempt"]
        self.pause = _LOOK_SECONDS if folder.store.is_local else _REMOTE_LOOK_SECONDS
        self._folder = RunFolder(folder.store.without_retry())
        self._id, self._process = settings["id"], process
        self._cursor, self._torn = 0, b""
        self._lines: deque[bytes] = deque()
        self._spans: Callable[[Mapping[str, Any]], bool] | None = None

    def read(self, most: int) -> list[Record]:
        """The next records that count, at most so many; none where there are no more yet. Raises CheckpointError."""
        counts = self._spans = self._spans or history.counting(
            [start for start in self._folder.attempts() if start.attempt <= self.attempt]
        )
        records: list[Record] = []
        while len(records) < most and (self._lines or self._fetch()):
            line = parse_line(self._lines.popleft().decode("utf-8", "replace"))
            start = 0 if line is None else line.get("attempt", 0)
            if line is not None and (start == self.attempt or (start < self.attempt and counts(line))):
                records.append(history.numbered(line))
        return records

    def end(self) -> tuple[str, dict[str, Any]] | None:
        """How the run ended, and its summary; None while it lasts."""
        gone = self._is_gone()  # before the look: its last word was written then
        for said in words()[1:]:
            return said["end"], said["summary"]
        return ("KILLED", {}) if gone else None

    def is_superseded(self) -> bool:
        """Whether a later start of the run brings what this one would, and says how the run ended."""
        if not self._is_gone():
            return False
        known = self._folder.read_json(RunFolder.TRACKERS) or {}  # the folder may be that of another run by now
        return known.get("id") != self._id or any(it.attempt > self.attempt for it in self._folder.attempts())

    def sleep(self, seconds: float) -> None:
        """Shorter where the run ends meanwhile."""
        until, ended = time.monotonic() + seconds, self.end()
        while time.monotonic() < until and self.end() == ended:
            time.sleep(min(seconds, _END_LOOK_SECONDS))

    def _is_gone(self) -> bool:
        return os.getppid() != self._process

    def _fetch(self) -> bool:
        """Whether there are more lines."""
        data = self._folder.store.find_bytes(RunFolder.HISTORY, start=self._cursor) or b""
        self._cursor += len(data)
        *lines, self._torn = (self._torn + data).split(b"\n")
        self._lines.extend(lines)
        return bool(lines)


def words() -> list[dict[str, Any]]:
    """What the run has written: the settings, and at its end how it ended. Read anew, as the run shares the place."""
    data = os.pread(0, os.fstat(0).st_size, 0)
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
