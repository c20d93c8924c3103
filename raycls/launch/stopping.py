"""Signals to the command: as requests to stop, or as the end of a block."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from raycls.errors import EXIT_STOPPED
from raycls.train.reasons import Reason

__all__ = ["StopRequest", "exit_code", "interrupted_by_sigterm"]


def exit_code(reason: Reason) -> int:
    """Of a command that ended for `reason`, and can be resumed."""
    return {Reason.SIGINT: 130, Reason.SIGTERM: 143}.get(reason, EXIT_STOPPED)


class StopRequest:
    """SIGINT and SIGTERM as a request: the first is remembered, the second ends the process at once."""

    def __init__(self, before_end: Callable[[], None]) -> None:
        self._before_end = before_end
        self._reason = Reason.NONE
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> Reason:
        """`SIGINT`, `SIGTERM`, or `NONE`."""
        return self._reason

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._reason:
            self._before_end()
            os._exit(128 + number)  # the guard ends a private Ray; a cluster ends this job's processes
        self._reason = Reason.SIGINT if number == signal.SIGINT else Reason.SIGTERM


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block as Ctrl-C does, so that what was made is removed; the process then ends with 143.

    As a KeyboardInterrupt on the way: from inside Ray a SystemExit would come out as an error of Ray's.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if asked:
            raise SystemExit(exit_code(Reason.SIGTERM))
