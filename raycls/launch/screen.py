"""What every display shares: a stream that may go away, and a terminal that is given back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

__all__ = ["Screen", "is_live", "show_cursor"]

_SHOW_CURSOR = b"\x1b[?25h\n"


class Screen:
    """A context manager: leaving it gives the terminal back."""

    def __init__(self) -> None:
        self._muted = False

    def close(self) -> None:
        """Give the terminal back. Harmless when called twice; plain lines have nothing to give back."""

    def abandon(self) -> None:
        """Give the terminal back at once, from a signal handler of a process that is about to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._guard(self.close)

    def _guard(self, show: Callable[[], None]) -> None:
        """A screen that is gone must not end what it shows: the files have all of it."""
        if self._muted:
            return
        try:
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
