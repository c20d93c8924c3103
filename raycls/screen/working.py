"""What a command is doing that has no display of its own: a line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Self

from raycls.progress import Progress
from raycls.screen.activity import Activity
from raycls.screen.live import LiveRegion
from raycls.screen.terminal import Screen, is_live

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Working"]

_AT_ONCE = 1.0
"""Seconds for which nothing is shown: what is over by then needs no line."""
_PLAIN_SECONDS = 30.0


class Working(Screen):
    """A context manager around `phase`, and what the code in it says of its progress; on stderr unless told."""

    _ticks = 0.5

    def __init__(self, phase: str, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._phase, self._clock = phase, clock
        self._stream: IO[str] = sys.stderr if stream is None else stream
        self._region = LiveRegion(self._stream, self._render) if is_live(self._stream) else None
        self._activity = Activity(clock)
        self._began = self._last = clock()

    def __enter__(self) -> Self:
        self._began = self._last = self._clock()
        self._activity.tell(Progress(self._phase))
        return super().__enter__()

    def tell(self, now: Progress) -> None:
        """Show what is going on instead of what was said before."""
        self._activity.tell(now)

    def close(self) -> None:
        """Show nothing more, whatever the block still does."""
        with self._lock:
            self._closed.set()
            if self._region is not None:
                self._region.stop()

    def abandon(self) -> None:
        if self._region is not None:
            self._region.abandon()

    def _tick(self) -> None:
        now = self._clock()
        if self._closed.is_set() or now - self._began < _AT_ONCE:
            return
        if self._region is not None:
            self._region.start()
        elif now - self._last >= _PLAIN_SECONDS:
            self._last = now
            self._stream.write(self._activity.text + "\n")
            self._stream.flush()

    def _render(self) -> Text:
        return self._activity.render()
