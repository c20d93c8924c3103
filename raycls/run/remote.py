"""Files of a store behind `pyarrow.fs`: S3, GCS, Azure, HDFS."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow
from pyarrow import fs as arrow

__all__ = ["RemoteFiles"]

_CHUNK = 8 * 1024 * 1024
# Their objects become visible when the upload is complete; elsewhere a file is moved into place.
_ATOMIC_PUT = frozenset({"s3", "gcs", "abfs"})


class RemoteFiles:
    """The operations of `LocalFiles` on the file system `filesystem` under `base`.

    Appended lines are held in memory and written with the whole file by `flush`, because object stores
    cannot append. Raises OSError.
    """

    def __init__(self, filesystem: arrow.FileSystem, base: str) -> None:
        self.filesystem = filesystem
        self.base = base.rstrip("/")
        self._atomic_put = filesystem.type_name.removeprefix("py::") in _ATOMIC_PUT
        self._lines: dict[str, bytearray] = {}
        self._lock = threading.RLock()

    def path(self, name: str) -> str:
        return f"{self.base}/{name}" if name else self.base

    def exists(self, name: str) -> bool:
        return self._kind(name) != arrow.FileType.NotFound

    def is_folder(self, name: str) -> bool:
        return self._kind(name) == arrow.FileType.Directory

    def read(self, name: str) -> bytes:
        with _os_errors(), self._lock:
            if name in self._lines:
                return bytes(self._lines[name])
            with self.filesystem.open_input_stream(self.path(name)) as stream:
                return stream.read()

    def list(self, name: str) -> builtins.list[str]:
        return sorted(info.base_name for info in self._infos(name, recursive=False))

    def write(self, name: str, data: bytes, atomic: bool) -> None:
        del atomic  # every put is
        with _os_errors(), self._putting(name) as path, self.filesystem.open_output_stream(path) as stream:
            stream.write(data)

    def upload(self, source: Path, name: str) -> None:
        with (
            open(source, "rb") as incoming,
            _os_errors(),
            self._putting(name) as path,
            self.filesystem.open_output_stream(path) as stream,
        ):
            while chunk := incoming.read(_CHUNK):
                stream.write(chunk)

    def append(self, name: str, data: bytes, sync: bool) -> None:
        with self._lock:
            if name not in self._lines:
                self._lines[name] = bytearray(self.read(name) if self.exists(name) else b"")
            lines = self._lines[name]
            if lines and not lines.endswith(b"\n"):
                lines += b"\n"
            lines += data
            if sync:
                self.flush(name)

    def flush(self, name: str | None = None) -> None:
        """Write the files with appended lines, or only `name`."""
        with self._lock:
            for unwritten in [known for known in self._lines if name in (None, known)]:
                self.write(unwritten, bytes(self._lines[unwritten]), atomic=True)
                del self._lines[unwritten]  # read again before the next line: another process may have added some

    def move(self, source: str, target: str) -> None:
        """Copy, then delete: a crash in between leaves both, never neither."""
        self.flush()
        with _os_errors(), self._lock:
            if self.exists(target):
                raise FileExistsError(self.path(target))
            folder = self.is_folder(source)
            names = [info.path for info in self._infos(source, recursive=True) if info.is_file] if folder else []
            start, end = self.path(source), self.path(target)
            for path in names or [start]:
                copy = end + path[len(start) :]
                self._make_parent(copy)
                self.filesystem.copy_file(path, copy)
            if folder:
                self.filesystem.delete_dir(start)
            else:
                self.filesystem.delete_file(start)

    def delete(self, name: str) -> None:
        with _os_errors(), self._lock:
            self._forget(name)
            if self._kind(name) == arrow.FileType.File:
                self.filesystem.delete_file(self.path(name))

    def delete_tree(self, name: str) -> None:
        with _os_errors(), self._lock:
            self._forget(name)
            kind = self._kind(name)
            if kind == arrow.FileType.Directory:
                self.filesystem.delete_dir(self.path(name))
            elif kind != arrow.FileType.NotFound:
                self.filesystem.delete_file(self.path(name))

    def make_folder(self, name: str) -> None:
        """Nothing: folders of an object store are prefixes of names."""

    def _kind(self, name: str) -> arrow.FileType:
        with _os_errors():
            return self.filesystem.get_file_info(self.path(name)).type

    def _infos(self, name: str, *, recursive: bool) -> builtins.list[arrow.FileInfo]:
        with _os_errors():
            selector = arrow.FileSelector(self.path(name), recursive=recursive, allow_not_found=True)
            return self.filesystem.get_file_info(selector)

    def _forget(self, name: str) -> None:
        for known in [known for known in self._lines if known == name or known.startswith(name + "/")]:
            del self._lines[known]

    def _make_parent(self, path: str) -> None:
        if not self._atomic_put:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)

    @contextmanager
    def _putting(self, name: str) -> Iterator[str]:
        path = self.path(name)
        if self._atomic_put:
            yield path
            return
        self._make_parent(path)
        folder, _, last = path.rpartition("/")
        temporary = f"{folder}/.{last}.{uuid4().hex}.tmp"
        try:
            yield temporary
            self.filesystem.move(temporary, path)
        except BaseException:
            if self.filesystem.get_file_info(temporary).type == arrow.FileType.File:
                self.filesystem.delete_file(temporary)
            raise


@contextmanager
def _os_errors() -> Iterator[None]:
    """Errors of pyarrow that are no OSError (a wrong argument, an operation that is not offered) as OSError."""
    try:
        yield
    except pyarrow.ArrowException as error:
        if isinstance(error, OSError):
            raise
        raise OSError(str(error)) from error
