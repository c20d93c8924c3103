"""What every display shares: a stream that may go away, and a terminal that is given back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import IO, Self

from raycls.progress import Progress, listening

__all__ = ["Screen", "is_live", "show_cursor"]

_SHOW_CURSOR = b"\x1b[?25h\n"


class Screen:
    """A context manager: in it, `tell` hears how far the work of this process is; leaving it gives the terminal back.

    Its methods may be called from any thread.
    """

    _ticks = 0.0
    """Seconds between two calls of `tick`, by a thread; 0: none."""

    def __init__(self) -> None:
        self._muted = False
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._entered = False

    def tell(self, now: Progress) -> None:
        """Show what is going on."""

    def tick(self) -> None:
        """Time has passed: show what is due."""
        self._guard(self._tick)

    def _tick(self) -> None: ...

    def close(self) -> None:
        """Give the terminal back. Harmless when called twice; plain lines have nothing to give back."""

    def abandon(self) -> None:
        """Give the terminal back at once, from a signal handler of a process that is about to end."""

    def __enter__(self) -> Self:
        self._stack.enter_context(listening(self.tell))
        self._entered = True
        self._closed.clear()
        if self._ticks:
            threading.Thread(target=self._run, name="raycls-screen", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered = False
        self._closed.set()
        self._stack.close()
        self._guard(self.close)

    def _run(self) -> None:
        while not self._closed.wait(self._ticks):
            self.tick()

    def _guard(self, show: Callable[[], None]) -> None:
        """A screen that is gone must not end what it shows: the files have all of it."""
        if self._muted:
            return
        try:
            with self._lock:
                show()
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and "closed file" not in str(error):
                raise
            self._muted = True


def show_cursor(stream: IO[str]) -> None:
    """Past rich and past the stream: whoever was interrupted may hold their locks."""
    with suppress(OSError, ValueError):
        os.write(stream.fileno(), _SHOW_CURSOR)


def is_live(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"
