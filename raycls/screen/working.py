"""What a command is doing that has no display of its own: a line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

from raycls.screen.terminal import Screen

__all__ = ["Working"]


class Working(Screen):
    """A context manager around `phase`, and what the code in it says of its progress; on stderr unless told."""

    _delay = 1.0  # what is over by then needs no line

    def __init__(
        self,
        phase: str,
        stream: IO[str] | None = None,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(sys.stderr if stream is None else stream, every, clock)
        self._phase = phase
