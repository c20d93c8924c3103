"""Files of a store on a local disk: each write is atomic and survives a loss of power once it returned."""

from __future__ import annotations

import builtins
import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["LocalFiles", "is_temporary"]

_CHUNK = 8 * 1024 * 1024
_serial = itertools.count()


def is_temporary(name: str) -> bool:
    """Whether `name` is a file that `LocalFiles.write` had not finished when its process ended."""
    return name.startswith(".") and name.endswith(".tmp")


class LocalFiles:
    """Plain file operations under `root`. Names are relative, separated by `/`; "" is the root itself.

    Raises OSError; `Store` turns it into an error for the user. Nothing is created before the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name if name else self.root

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def is_folder(self, name: str) -> bool:
        return self.path(name).is_dir()

    def read(self, name: str, start: int = 0) -> bytes:
        with open(self.path(name), "rb") as file:
            file.seek(start)
            return file.read()

    def list(self, name: str) -> builtins.list[str]:
        try:
            return sorted(os.listdir(self.path(name)))
        except FileNotFoundError:
            return []

    def write(self, name: str, data: bytes, atomic: bool) -> None:
        path = self.path(name)
        _make_folder(path.parent, self.root)
        if not atomic:
            _write_synced(path, data)
            return
        with _replacing(path) as temporary:
            _write_synced(temporary, data)

    def upload(self, source: Path, name: str) -> None:
        path = self.path(name)
        _make_folder(path.parent, self.root)
        with _replacing(path) as temporary, open(source, "rb") as incoming, _created(temporary) as file:
            while chunk := incoming.read(_CHUNK):
                _write_all(file.fileno(), chunk)
            os.fsync(file.fileno())

    def append(self, name: str, data: bytes, sync: bool) -> None:
        """Add whole lines. A last line without an end, left by a crash, is closed before them.

        One write call, so that a kill leaves either all or a prefix; a write that fails is taken back.
        """
        path = self.path(name)
        _make_folder(path.parent, self.root)
        created = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                _write_all(descriptor, data)
                if sync:
                    os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if sync and created:
            _sync_folder(path.parent)

    def move(self, source: str, target: str) -> None:
        start, end = self.path(source), self.path(target)
        if end.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(end))
        _make_folder(end.parent, self.root)
        if start.is_dir():
            _sync_folder(start)
        start.rename(end)
        _sync_folder(end.parent)
        if start.parent != end.parent:
            _sync_folder(start.parent)

    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def delete_tree(self, name: str) -> None:
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def make_folder(self, name: str) -> None:
        _make_folder(self.path(name), self.root)


def _make_folder(folder: Path, root: Path) -> None:
    """Make `folder` and what is missing above it. `root` and all below it is for its owner alone: a run knows the data,
    and what it holds is trusted by the next start."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, root)
    try:
        folder.mkdir(mode=0o700 if folder.is_relative_to(root) else 0o777)
    except FileExistsError:
        if not folder.is_dir():  # a file has its name; another process making the folder first is fine
            raise
    _sync_folder(folder.parent)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when the block ends well, and is gone when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_serial)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _created(path: Path) -> IO[bytes]:
    return open(path, "wb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))


def _write_synced(path: Path, data: bytes) -> None:
    with _created(path) as file:
        _write_all(file.fileno(), data)
        os.fsync(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # the kernel writes at most 2 GiB at once, and less on a disk that fills up
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync folders by themselves and refuse the call
            raise
    finally:
        os.close(descriptor)
