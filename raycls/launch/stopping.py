"""Signals to the command as requests to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["SIGNALS", "StopRequest"]

SIGNALS = {"sigint": 130, "sigterm": 143}
"""Exit codes of what a signal ended."""


class StopRequest:
    """SIGINT and SIGTERM as a request: the first is remembered, the second ends the process at once."""

    def __init__(self, before_end: Callable[[], None]) -> None:
        self._before_end = before_end
        self._reason = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> str:
        """Empty, `sigint` or `sigterm`."""
        return self._reason

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._reason:
            self._before_end()
            os._exit(128 + number)  # the guard ends a private Ray; a cluster ends this job's processes
        self._reason = "sigint" if number == signal.SIGINT else "sigterm"
