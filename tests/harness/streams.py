"""Streams as a display meets them."""

from __future__ import annotations

import io


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe whose reader left."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def write(self, text: str, /) -> int:
        self.tries += 1
        raise BrokenPipeError
