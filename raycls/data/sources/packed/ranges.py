"""Parts of large files by their places: of a local file by its handle, of an object by ranged requests."""

from __future__ import annotations

import os
from typing import Any, Protocol

from raycls.data.sources.remote.places import Local
from raycls.data.sources.remote.stored import Stored

__all__ = ["Ranges", "open_ranges"]

_PAGES, _REQUEST = 4096, 1 << 20
"""Bytes that are read at once where headers are looked for: a header, often that of a label and the label too; and of
an object what comes in about the time that a request takes anyway."""


class Ranges(Protocol):
    """A file that is open until nobody reads it any more."""

    size: int
    """Bytes."""
    block: int
    """Bytes that one read should ask for, where more may follow."""

    def read(self, count: int, place: int) -> bytes:
        """At most `count` bytes from `place` on, fewer at the end of the file. Raises as `open_ranges`."""
        ...


def open_ranges(files: Stored, number: int) -> Ranges:
    """The file `number`. OSError where it cannot be read; of an object OutageError or DataError, as `Stored.run`."""
    return _File(files.locate(number)) if isinstance(files.place, Local) else _Object(files, number)


class _File:
    block = _PAGES

    def __init__(self, path: str) -> None:
        self._handle = -1
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size

    def read(self, count: int, place: int) -> bytes:
        return os.pread(self._handle, count, place)

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


class _Object:
    block = _REQUEST

    def __init__(self, files: Stored, number: int) -> None:
        files.size(number)  # raises where it was not listed
        self._files, self._number = files, number
        self._file: Any = files.source(number)
        self.size: int = files.run(number, self._file.size)

    def read(self, count: int, place: int) -> bytes:
        count = min(count, self.size - place)
        return self._files.run(self._number, lambda: self._file.read_at(count, place)) if count > 0 else b""
