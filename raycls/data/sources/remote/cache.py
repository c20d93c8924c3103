"""`data.cache: {dir, limit}`: objects of a store, kept on the disk of the node that reads them.

Any number of processes, and of runs, share a folder. An entry is a file: what the object holds, then a trailer with its
CRC-32. Its name is made of the address, size and time of change that the store listed, so that an object that was
changed is another entry. One process at a time writes, with a lock: it notes the bytes that there will be, deletes the
entries that were used longest ago where these are too many, writes a file beside and moves it into place. Killed at any
moment, it leaves whole entries and a sum that is right or too large; a sum that is too large is counted anew.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from raycls.config.paths import expand
from raycls.config.sections.data import CacheConfig
from raycls.data.samples import Reader, Samples
from raycls.data.sources.remote.address import Address
from raycls.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Cache", "entry_of", "with_cache"]

_TRAILER = struct.Struct("<8s4sI")
"""The beginning of the entry's name, a mark, and the CRC-32 of what is before."""
_MARK = b"RCC1"
_BLOCK = 4096
"""What a file takes of the disk is a multiple of it."""
_KEPT = 0.9
"""Part of the limit that is left where entries are deleted: to look at all of them takes a while."""
_TOUCHED = 60.0
"""Seconds within which an entry that is used again counts as used at the same time."""
_logger = logging.getLogger("raycls")


def entry_of(address: Address, size: int, changed: int, *, part: str = "") -> str:
    """The name of the entry for an object with `size` bytes that was changed at `changed`, in nanoseconds; or for a
    part of it."""
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    text = "\0".join((server, address.store, address.path, str(size), str(changed), *([part] if part else [])))
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Entries in one folder."""

    folder: str
    """Absolute path."""
    limit: int
    """Bytes that all entries together may take of the disk, whoever wrote them."""

    @staticmethod
    def of(config: CacheConfig) -> Cache:
        """The cache of an option. ConfigError where its folder cannot be written to."""
        made = Cache(os.path.abspath(expand(config.dir, where="data.cache.dir")), config.bytes)
        try:
            with made._locked():
                return made
        except OSError as error:
            raise ConfigError(
                "the folder of data.cache cannot be written to",
                where=f"data.cache.dir: {made.folder}",
                found=error.strerror or str(error),
                fix="name a folder on a local disk of this machine, in which this user may write",
            ) from error

    def has(self, entry: str) -> bool:
        return os.path.exists(self._path(entry))

    def read(self, entry: str) -> bytes | None:
        """What was added; None where it is not there, or damaged."""
        try:
            file = os.open(self._path(entry), os.O_RDONLY)
        except OSError:
            return None
        try:
            status = os.fstat(file)
            data = os.read(file, status.st_size)
            if time.time() - status.st_mtime > _TOUCHED:
                os.utime(file)
        except OSError:
            return None
        finally:
            os.close(file)
        return data[: -_TRAILER.size] if self._whole(entry, data) else None

    def mapped(self, entry: str) -> pa.Buffer | None:
        """The same in mapped memory, which stays where the entry is deleted."""
        import pyarrow as pa

        try:
            with pa.memory_map(self._path(entry)) as file:
                data = file.read_buffer()
            os.utime(self._path(entry))
        except (OSError, pa.ArrowException):
            return None
        return data.slice(0, data.size - _TRAILER.size) if self._whole(entry, data) else None

    def add(self, entry: str, data: bytes) -> None:
        """Keep what an object holds. Where that cannot be, because the disk is full or it is larger than all may be,
        nothing is kept."""
        size = _on_disk(len(data) + _TRAILER.size)
        if size > self.limit:
            return
        try:
            with self._locked() as lock:
                if self.has(entry):
                    return
                total = _total(lock)
                if total is None or total + size > self.limit:
                    total = self._make_room(size)
                _note(lock, total + size)  # first: killed from here on, the sum is too large and not too small
                self._write(entry, data)
        except OSError as error:
            _warn(f"data.cache: {self.folder}: {error.strerror or error}: objects are asked for again each time")

    def _write(self, entry: str, data: bytes) -> None:
        path = self._path(entry)
        with open(self._temporary, "wb", buffering=0) as file:
            for part in (data, _TRAILER.pack(bytes.fromhex(entry[:16]), _MARK, zlib.crc32(data))):
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(self._temporary, path)

    def _make_room(self, size: int) -> int:
        """Delete what was used longest ago, until `size` bytes fit; the bytes that are left."""
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)  # of a process that was killed: nobody else writes now
        entries = sorted(self._entries())
        total = sum(taken for _, taken, _ in entries)
        goal = min(self.limit - size, int(_KEPT * self.limit))
        for _, taken, path in entries:
            if total <= goal:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= taken
        return total

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """When each entry was used, what it takes of the disk, and its path."""
        with os.scandir(self._root) as folders:
            for folder in [each.path for each in folders if each.is_dir()]:
                with os.scandir(folder) as files:
                    for file in files:
                        with suppress(FileNotFoundError):
                            status = file.stat()
                            yield status.st_mtime_ns, _on_disk(status.st_size), file.path

    def _whole(self, entry: str, data: bytes | pa.Buffer) -> bool:
        """Whether an entry is what was added; else it is deleted, and will be fetched again."""
        start = len(data) - _TRAILER.size
        if start >= 0 and _TRAILER.unpack_from(data, start) == (
            bytes.fromhex(entry[:16]),
            _MARK,
            zlib.crc32(memoryview(data)[:start]),
        ):
            return True
        with suppress(OSError):
            os.unlink(self._path(entry))
        return False

    @property
    def _root(self) -> str:
        return os.path.join(self.folder, "objects-1")

    @property
    def _temporary(self) -> str:
        return os.path.join(self.folder, "objects-1", "writing")

    def _path(self, entry: str) -> str:
        return f"{self.folder}/objects-1/{entry[:2]}/{entry}"

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """While it lasts nobody else writes; gives the file that holds the sum."""
        os.makedirs(self._root, exist_ok=True)
        lock = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)  # and with it the lock


def with_cache(samples: Samples, config: CacheConfig | str) -> Samples:
    """`samples` read through the cache that `data.cache` names; data that is not behind an address needs none."""
    if not isinstance(config, CacheConfig):
        return samples
    attach: Callable[[Cache], Reader] | None = getattr(samples.reader, "cached", None)
    files = getattr(samples.reader, "files", None)
    if attach is None or (files is not None and not files.listed):
        return replace(samples, notes=(*samples.notes, "data.cache.dir is not used: the data is no object store's"))
    return replace(samples, reader=attach(Cache.of(config)))


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _total(lock: int) -> int | None:
    """The sum that was noted last; None where nobody did, or was killed while he did."""
    text = os.pread(lock, 64, 0)
    return int(text) if text.endswith(b"\n") and text[:-1].isdigit() else None


def _note(lock: int, total: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % total, 0)


@cache
def _warn(text: str) -> None:
    """Once for each text."""
    _logger.warning("warning: %s", text)
