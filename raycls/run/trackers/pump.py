"""Bringing lines to a tracker that may be down, slow, or wrong about them, until all are there or time is up."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any, Protocol

from raycls.config.sections.uri_secrets import hidden

__all__ = ["Destination", "Record", "RefusedError", "pump"]

_BATCH = 200
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0
"""Seconds between two tries."""

Record = dict[str, Any]


class RefusedError(Exception):
    """The tracker will not take these lines, however often they are sent."""


class Destination(Protocol):
    """A tracker. Every method may raise anything, and is then called again with the same arguments."""

    def open(self, past: list[Record]) -> dict[str, str]:
        """Find or make the run, and bring it what it lacks of `past`. Returns what the user is told: `url`, `remedy`.

        `past` is what led to the state that this start goes on from.
        """
        ...

    def send(self, records: list[Record]) -> None:
        """Bring it these. RefusedError where there is no use in trying again."""
        ...

    def end(self, state: str, summary: dict[str, Any]) -> None:
        """The run is FINISHED, FAILED or KILLED."""
        ...


def pump(
    destination: Destination,
    past: Callable[[], list[Record]],
    inbox: queue.Queue[Record | None],
    say: Callable[..., None],
) -> None:
    """Bring what comes in to `destination`, in order, and try again and again where that fails, until the end."""
    opened, delivered, wait, next_try = False, 0, _FIRST_WAIT, 0.0
    pending: list[Record] = []
    end: Record | None = None
    while True:
        if end is None:
            end = _collect(inbox, pending)
        if time.monotonic() < next_try:
            time.sleep(0.1 if end is None else 0.02)
            continue
        try:
            if not opened:
                told = destination.open(past())
                opened = True
                say(**told)
            if pending:
                delivered += _send(destination, pending, say)
                say(delivered=delivered)
                pending.clear()
            if end is not None:
                destination.end(end["end"], end["summary"])
                say(ended=True)
                return
            wait = _FIRST_WAIT
        except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises
            say(problem=_told(error))
            next_try = time.monotonic() + wait
            wait = min(_LONGEST_WAIT, wait * 2)


def _send(destination: Destination, records: list[Record], say: Callable[..., None]) -> int:
    try:
        destination.send(records)
    except RefusedError as error:
        if len(records) > 1:  # one of them is at fault, not all
            return sum(_send(destination, [record], say) for record in records)
        say(problem=_told(error))
        return 0
    return len(records)


def _collect(inbox: queue.Queue[Record | None], pending: list[Record]) -> Record | None:
    """Take what has come in, waiting a second for the first; the end, where that was among it."""
    timeout = 0.0 if pending else 1.0
    while len(pending) < _BATCH:
        try:
            item = inbox.get(timeout=timeout) if timeout else inbox.get_nowait()
        except queue.Empty:
            return None
        if item is None or "end" in item:
            return item or {"end": "KILLED", "summary": {}}
        pending.append(item["record"])
        timeout = 0.0
    return None


def _told(error: BaseException) -> str:
    """What is behind it all, in one line: libraries wrap a refused connection in pages of text."""
    inner: BaseException | None = error
    while (inner := inner.__cause__ or inner.__context__) is not None:
        error = inner if str(inner).strip() else error
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return hidden(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:300]
