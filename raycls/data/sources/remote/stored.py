"""Few large files of a data set, here or in an object store, as readers of parts of them open them."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, TypeVar

from raycls.data.sources.remote.address import Address, connect, explained, read
from raycls.data.sources.remote.cache import Cache, entry_of
from raycls.data.sources.remote.places import Local, Place, Remote

__all__ = ["Stored"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Stored:
    """Files of a place. It travels to other processes with nothing opened."""

    place: Place
    names: tuple[str, ...]
    listed: tuple[tuple[int, int], ...]
    """Bytes and time of change of each object when the data was opened; empty for local files."""
    cache: Cache | None = None

    @staticmethod
    def of(place: Place, names: Sequence[str]) -> Stored:
        return Stored(place, tuple(names), tuple(place.marks(names)) if isinstance(place, Remote) else ())

    def cached(self, cache: Cache) -> Stored:
        """The same with what is opened kept in `cache`; local files are left where they are."""
        return replace(self, cache=cache) if self.listed else self

    @property
    def is_mappable(self) -> bool:
        """Whether files lie on a disk of this machine, or will when they are opened."""
        return not self.listed or self.cache is not None

    def locate(self, number: int) -> str:
        """The path or address of a file, for messages."""
        return self.place.locate(self.names[number])

    def size(self, number: int) -> int:
        """Bytes of a file. Raises OSError where it is not there."""
        if isinstance(self.place, Local):
            return os.stat(self.locate(number)).st_size
        if self.listed[number][0] < 0:
            raise FileNotFoundError(errno.ENOENT, "no such object")
        return self.listed[number][0]

    def source(self, number: int) -> Any:
        """What pyarrow opens the file by: a path, mapped memory, or an object of which parts are read."""
        if isinstance(self.place, Local):
            return self.locate(number)
        import pyarrow as pa

        address = self.address(number)
        if self.cache is None:
            files = connect(address)
            return self.run(number, lambda: files.filesystem.open_input_file(f"{files.base}/{address.path}"))
        entry = entry_of(address, *self.listed[number])
        found = self.cache.mapped(entry)
        if found is None:
            data = read(address)
            if len(data) == self.listed[number][0]:
                self.cache.add(entry, data)
            found = self.cache.mapped(entry) or pa.py_buffer(data)
        return pa.BufferReader(found)

    def open(self, number: int) -> IO[bytes]:
        """The file, to be read. Raises OSError, or DataError as `address.read`."""
        source = self.source(number)
        return open(source, "rb") if isinstance(source, str) else source

    def content(self, number: int) -> IO[bytes]:
        """All of the file, in memory where it is an object. Raises as `open`."""
        source = self.source(number)
        return open(source, "rb") if isinstance(source, str) else io.BytesIO(self.run(number, source.read))

    def run(self, number: int, operation: Callable[[], _Result]) -> _Result:
        """The result of reading from the file `number`, which is tried again where a store did not answer. OutageError
        where it never does, DataError where it refuses; whatever else `operation` raises."""
        if isinstance(self.place, Local):
            return operation()
        address = self.address(number)
        try:
            return connect(address).retry.run(operation)
        except OSError as error:
            if error.errno == errno.EINVAL:  # what was read is not what it should be
                raise
            raise explained(error, address) from error

    def address(self, number: int) -> Address:
        """Where an object is. TypeError for a local file."""
        if not isinstance(self.place, Remote):
            raise TypeError("local files have no address")
        return self.place.address.at(self.names[number])
