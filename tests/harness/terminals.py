"""A terminal of this process's own, and what stood on its screen at each moment."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Self

_PART = re.compile(r"\x1b[^A-Za-z\x07]*$")
_SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07")


@dataclass
class Page:
    """A screen of lines without an end, as far as displays use one: text, line feeds, up, and erasing."""

    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    cursor: bool = True
    """Whether the cursor is visible."""

    def feed(self, text: str) -> None:
        position = 0
        for match in _SEQUENCE.finditer(text):
            self._write(text[position : match.start()])
            position = match.end()
            count, letter = match[1] or "", match[2]
            if letter == "A":
                self.row = max(0, self.row - int(count or 1))
            elif letter == "K":
                self.lines[self.row] = "" if count == "2" else self.lines[self.row][: self.column]
            elif letter in ("h", "l") and count == "?25":
                self.cursor = letter == "h"
            else:
                assert letter in (None, "m"), f"unknown sequence {match[0]!r}"
        self._write(text[position:])

    def _write(self, text: str) -> None:
        for character in text:
            if character == "\n":
                self.row, self.column = self.row + 1, 0  # the line discipline adds the return
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif character == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
                self.column += 1

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


class Pseudoterminal:
    """A context manager. `stream` is what a program writes to; `seen` has `(seconds, screen)` at each change."""

    def __init__(self, columns: int = 120, rows: int = 40) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.stream: IO[str] = os.fdopen(slave, "w", encoding="utf-8")
        self.page = Page()
        self.seen: list[tuple[float, str]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.flush()
        self._closed.set()
        self._thread.join()
        self.stream.close()
        os.close(self._master)

    def longest_stand(self, shown: Callable[[str], str | None]) -> tuple[float, list[str]]:
        """The longest time in seconds that what `shown` finds on the screen stayed the same, and all that it found.

        Times at which it finds nothing (None) do not count.
        """
        longest, values, since, before = 0.0, list[str](), 0.0, None
        for now, screen in [*self.seen, (time.monotonic(), "")]:
            found = shown(screen)
            if found == before:
                continue
            if before is not None:
                longest = max(longest, now - since)
            if found is not None:
                values.append(found)
            since, before = now, found
        return longest, values

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        pending = ""
        while True:
            ready, _, _ = select.select([self._master], [], [], 0.05)
            if ready:
                text = pending + decode(os.read(self._master, 65536))
                cut = _PART.search(text)  # a sequence may come in two pieces
                pending = cut[0] if cut else ""
                self.page.feed(text.removesuffix(pending))
                self.seen.append((time.monotonic(), self.page.text))
            elif self._closed.is_set():
                return
