"""Files of a store behind `pyarrow.fs`: S3, GCS, Azure, HDFS."""

from __future__ import annotations

import builtins
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from pyarrow import fs as arrow

from raycls.run.storage.retry import Retry

__all__ = ["RemoteFiles"]

_CHUNK = 8 * 1024 * 1024
_MOST_HELD = 16 * 1024 * 1024
"""Bytes from which on an appended file is read again before its next line instead of kept in memory."""
# Their objects become visible when the upload is complete; elsewhere a file is moved into place.
_ATOMIC_PUT = frozenset({"s3", "gcs", "abfs"})
_Result = TypeVar("_Result")


class RemoteFiles:
    """The operations of `LocalFiles` on the file system `filesystem` under `base`.

    Each request that is not answered is sent again, as `retry` says. Appended lines are held in memory and
    written with the whole file by `flush`, because object stores cannot append. Raises OSError.
    """

    def __init__(self, filesystem: arrow.FileSystem, base: str, retry: Retry) -> None:
        self.filesystem = filesystem
        self.base = base.rstrip("/")
        self.retry = retry
        self._atomic_put = filesystem.type_name.removeprefix("py::") in _ATOMIC_PUT
        self._lines: dict[str, bytearray] = {}
        self._unwritten: set[str] = set()
        self._memory = threading.Lock()
        self._flushing = threading.Lock()

    def below(self, base: str) -> RemoteFiles:
        """The same storage under another base."""
        return RemoteFiles(self.filesystem, base, self.retry)

    def without_retry(self) -> RemoteFiles:
        """The same files for a caller that does not wait for a storage that is away."""
        return RemoteFiles(self.filesystem, self.base, self.retry.without_retry())

    def path(self, name: str) -> str:
        return f"{self.base}/{name}" if name else self.base

    def exists(self, name: str) -> bool:
        return self._kind(self.path(name)) != arrow.FileType.NotFound

    def is_folder(self, name: str) -> bool:
        return self._kind(self.path(name)) == arrow.FileType.Directory

    def has_root(self) -> bool:
        """Whether there is a bucket (container) that `base` can be in."""
        return self._kind(self.base.lstrip("/").partition("/")[0]) != arrow.FileType.NotFound

    def read(self, name: str, start: int = 0) -> bytes:
        with self._memory:
            if name in self._lines:
                return bytes(self._lines[name][start:])
        return self._run(lambda: self._read(name, start))

    def list(self, name: str) -> builtins.list[str]:
        return sorted(info.base_name for info in self._infos(name, recursive=False) if info.base_name)

    def files(self, *, deep: bool = True) -> builtins.list[tuple[str, int, int]] | None:
        """Name, bytes and time of change (in nanoseconds) of each file below the base, at any depth or directly there,
        sorted by name; None where the base is a file itself, or nothing."""
        if not self.is_folder(""):
            return None
        infos = [info for info in self._infos("", recursive=deep) if info.is_file]
        start = len(self.base) + 1
        return sorted((info.path[start:], info.size or 0, info.mtime_ns or 0) for info in infos)

    def write(self, name: str, data: bytes, atomic: bool) -> None:
        del atomic  # every put is
        self._run(lambda: self._put(name, lambda path: self._write(path, data)))

    def upload(self, source: Path, name: str) -> None:
        self._run(lambda: self._put(name, lambda path: self._upload(source, path)))

    def append(self, name: str, data: bytes, sync: bool) -> None:
        with self._memory:
            known = self._add(name, data)
        if not known:
            with self._flushing:  # no flush drops the lines meanwhile
                before = self._before(name)
                with self._memory:
                    self._lines.setdefault(name, bytearray(before))
                    self._add(name, data)
        if sync:
            self.flush(name)

    def flush(self, name: str | None = None) -> None:
        """Write the files with appended lines, or only `name`. Others may append meanwhile."""
        with self._flushing:
            with self._memory:
                unwritten = {known: bytes(self._lines[known]) for known in self._unwritten if name in (None, known)}
            for known, data in unwritten.items():
                self.write(known, data, atomic=True)
                with self._memory:
                    if len(self._lines.get(known, b"")) == len(data):
                        self._unwritten.discard(known)
                        if len(data) >= _MOST_HELD:
                            del self._lines[known]

    def _add(self, name: str, data: bytes) -> bool:
        """Add whole lines to those that are held; whether those of this file are."""
        lines = self._lines.get(name)
        if lines is None:
            return False
        if lines and not lines.endswith(b"\n"):
            lines += b"\n"
        lines += data
        self._unwritten.add(name)
        return True

    def move(self, source: str, target: str, last: str = "") -> None:
        """Copy, then delete: a crash in between leaves both, never neither.

        The file `last` is copied last and deleted first, so that what has it has all.
        """
        self.flush()
        if self.exists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path(target))
        if not self.is_folder(source):
            self._copy(self.path(source), self.path(target))
            self.delete(source)
            return
        start, end = self.path(source), self.path(target)
        names = [info.path[len(start) :] for info in self._infos(source, recursive=True) if info.is_file]
        for name in sorted(names, key=lambda name: name == f"/{last}"):
            self._copy(start + name, end + name)
        if last:
            self.delete(f"{source}/{last}")
        self.delete_tree(source)

    def delete(self, name: str) -> None:
        self.forget(name)
        if self._kind(self.path(name)) == arrow.FileType.File:
            self._run(lambda: _gone(self.filesystem.delete_file, self.path(name)))

    def delete_tree(self, name: str) -> None:
        self.forget(name)
        kind = self._kind(self.path(name))
        if kind == arrow.FileType.Directory:
            self._run(lambda: _gone(self.filesystem.delete_dir, self.path(name)))
        elif kind != arrow.FileType.NotFound:
            self._run(lambda: _gone(self.filesystem.delete_file, self.path(name)))

    def make_folder(self, name: str) -> None:
        """Nothing: folders of an object store are prefixes of names."""

    def _run(self, operation: Callable[[], _Result]) -> _Result:
        return self.retry.run(operation)

    def _kind(self, path: str) -> arrow.FileType:
        return self._run(lambda: self.filesystem.get_file_info(path).type)

    def _infos(self, name: str, *, recursive: bool) -> builtins.list[arrow.FileInfo]:
        selector = arrow.FileSelector(self.path(name), recursive=recursive, allow_not_found=True)
        return self._run(lambda: self.filesystem.get_file_info(selector))

    def _before(self, name: str) -> bytes:
        try:
            return self._run(lambda: self._read(name))
        except FileNotFoundError:
            return b""

    def _read(self, name: str, start: int = 0) -> bytes:
        # Not as a stream: without knowing its end pyarrow asks S3 for 64 KiB at a time.
        with self.filesystem.open_input_file(self.path(name)) as file:
            size = max(0, file.size() - start)
            file.seek(start if size else 0)
            data = file.read(size) if size else b""
        if len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes of {self.path(name)} arrived")
        return data

    def _write(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(data)

    def _upload(self, source: Path, path: str) -> None:
        with open(source, "rb") as incoming, self.filesystem.open_output_stream(path) as stream:
            while chunk := incoming.read(_CHUNK):
                stream.write(chunk)

    def _copy(self, source: str, target: str) -> None:
        self._make_parent(target)
        self._run(lambda: self.filesystem.copy_file(source, target))

    def forget(self, name: str = "") -> None:
        """Drop the lines that are held for the file or folder `name`: it is not there any more."""
        with self._memory:
            for known in [known for known in self._lines if not name or known == name or known.startswith(name + "/")]:
                del self._lines[known]
                self._unwritten.discard(known)

    def _make_parent(self, path: str) -> None:
        if not self._atomic_put:
            self._run(lambda: self.filesystem.create_dir(path.rpartition("/")[0], recursive=True))

    def _put(self, name: str, write: Callable[[str], None]) -> None:
        """Have `write` write a file that is `name` when it is whole."""
        path = self.path(name)
        if self._atomic_put:
            write(path)
            return
        folder, _, last = path.rpartition("/")
        self.filesystem.create_dir(folder, recursive=True)
        temporary = f"{folder}/.{last}.{uuid4().hex}.tmp"
        try:
            write(temporary)
            self.filesystem.move(temporary, path)
        except BaseException:
            if self.filesystem.get_file_info(temporary).type == arrow.FileType.File:
                self.filesystem.delete_file(temporary)
            raise


def _gone(delete: Callable[[str], None], path: str) -> None:
    """Delete what an earlier request, whose answer was lost, may have deleted."""
    try:
        delete(path)
    except FileNotFoundError:
        return
