"""Where a run folder lives: a local folder, or any place `pyarrow.fs` reaches (`s3://`, `gs://`, `abfs://`)."""

from __future__ import annotations

import builtins
import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from raycls.config.paths import expand
from raycls.config.uri_secrets import has_secret, hidden
from raycls.errors import CheckpointError, ConfigError
from raycls.run.storage.local import LocalFiles

if TYPE_CHECKING:
    from raycls.run.storage.remote import RemoteFiles

__all__ = ["Store"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_FLUSH_EVERY = 30.0
"""Seconds that appended lines may wait in memory before a remote file is rewritten with them."""


class Store:
    """Files under one base, by names relative to it, separated by `/`; "" is the base itself.

    Every method raises CheckpointError that names the file and the remedy. `uri` opens the same store in
    another process, whatever its working directory is. Opening a store creates nothing.
    """

    def __init__(self, uri: str | Path) -> None:
        text = str(uri)
        if _SCHEME.match(text) and not text.startswith("file://"):
            _refuse_secrets(text)
            self.uri = text.rstrip("/")
            from raycls.run.storage.object_storage import open_storage

            self._files: LocalFiles | RemoteFiles = open_storage(text)
        else:
            plain = unquote(urlsplit(text).path) if text.startswith("file://") else text
            root = Path(os.path.abspath(expand(plain, where="run.storage")))
            self.uri = str(root)
            self._files = LocalFiles(root)
        self._flushed = time.monotonic()

    @classmethod
    def _on(cls, files: LocalFiles | RemoteFiles, uri: str) -> Store:
        store = cls.__new__(cls)
        store.uri, store._files, store._flushed = uri, files, time.monotonic()
        return store

    @property
    def is_local(self) -> bool:
        return isinstance(self._files, LocalFiles)

    def sub(self, name: str) -> Store:
        """The store one or more folders below this one."""
        name = _checked(name)
        if isinstance(self._files, LocalFiles):
            return Store(self._files.path(name))
        address, mark, options = self.uri.partition("?")
        return Store._on(self._files.below(self._files.path(name)), f"{address.rstrip('/')}/{name}{mark}{options}")

    def sibling(self, name: str) -> Store:
        """The store `name` beside this one."""
        if isinstance(self._files, LocalFiles):
            return Store(self._files.root.with_name(name))
        parent, _, _ = self._files.base.rpartition("/")
        address, mark, options = self.uri.partition("?")
        uri = f"{address.rpartition('/')[0]}/{name}{mark}{options}"
        return Store._on(self._files.below(f"{parent}/{name}"), uri)

    @classmethod
    def around(cls, uri: str) -> tuple[Store, str]:
        """The store of the folder that holds the file `uri`, and the name of the file there."""
        address, mark, options = uri.partition("?") if _SCHEME.match(uri) else (uri, "", "")
        parent, slash, name = address.rpartition("/")
        return cls(f"{parent or slash or '.'}{mark}{options}"), name

    @property
    def place(self) -> tuple[str, str]:
        """The folder or URI around this store, as `run.storage` has it, and the name of this one there."""
        address, mark, options = self.uri.partition("?") if _SCHEME.match(self.uri) else (self.uri, "", "")
        parent, _, name = address.rstrip("/").rpartition("/")
        return f"{parent or '/'}{mark}{options}", name

    def address(self, name: str) -> str:
        """The file `name` as a path, or as a URI with the options of this store: `around` takes it apart."""
        if isinstance(self._files, LocalFiles):
            return str(self._files.path(_checked(name)))
        address, mark, options = self.uri.partition("?")
        return f"{address}/{_checked(name)}{mark}{options}"

    def without_retry(self) -> Store:
        """The same store for a caller that does not wait for a storage that is away. Holds no appended lines."""
        return self if isinstance(self._files, LocalFiles) else Store._on(self._files.without_retry(), self.uri)

    def tell(self, say: Callable[[str], None]) -> None:
        """Have `say` hear, from any thread, when the storage is away and when it is back. Else a log does."""
        if not isinstance(self._files, LocalFiles):
            self._files.retry.say = say

    def check(self) -> None:
        """Ask a remote storage whether it can be used: ConfigError for an error in its address, told in seconds."""
        if not isinstance(self._files, LocalFiles):
            from raycls.run.storage.object_storage import check

            check(self._files, self.uri)

    def local_path(self, name: str = "") -> Path | None:
        """The absolute path of `name`, or None where the store is not local."""
        return self._files.path(_checked(name)) if isinstance(self._files, LocalFiles) else None

    def describe(self, name: str = "") -> str:
        """`name` as a message shows it."""
        if isinstance(self._files, LocalFiles):
            return str(self._files.path(name))
        address = self.uri.partition("?")[0]
        return f"{address}/{name}" if name else address

    def exists(self, name: str = "") -> bool:
        with self.explaining("looked at", name):
            return self._files.exists(_checked(name))

    def is_folder(self, name: str = "") -> bool:
        with self.explaining("looked at", name):
            return self._files.is_folder(_checked(name))

    def list(self, name: str = "") -> builtins.list[str]:
        """Names of the files and folders directly in the folder `name`, sorted; none where it is missing."""
        with self.explaining("listed", name):
            return self._files.list(_checked(name))

    def read_bytes(self, name: str, *, start: int = 0) -> bytes:
        """What the file holds from byte `start` on."""
        with self.explaining("read", name):
            return self._files.read(_checked(name), start)

    def find_bytes(self, name: str, *, start: int = 0) -> bytes | None:
        """What the file holds from byte `start` on, or None where there is no such file."""
        try:
            return self.read_bytes(name, start=start)
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def read_lines(self, name: str) -> builtins.list[str]:
        """The lines of a text file without their ends; none where there is no such file."""
        data = self.find_bytes(name)
        return [] if data is None else data.decode("utf-8", "replace").split("\n")

    def write_bytes(self, name: str, data: bytes, *, atomic: bool = True) -> None:
        """Write the file. A reader, and a start after a crash, sees the old or the new content, nothing else.

        `atomic=False` is for new files in a folder that is itself moved into place when it is complete.
        """
        with self.explaining("written", name):
            self._files.write(_checked(name), data, atomic)

    def upload_file(self, source: str | Path, name: str) -> None:
        """Copy the local file `source` to `name`, atomically."""
        with self.explaining("written", name):
            self._files.upload(Path(source), _checked(name))

    def append_line(self, name: str, text: str, *, sync: bool = False) -> None:
        """Add one line to a file. With `sync` it is on the disk, or in the remote store, on return."""
        self.append_lines(name, [text], sync=sync)

    def append_lines(self, name: str, lines: Sequence[str], *, sync: bool = False) -> None:
        """Add lines to a file in one write. What a crash left of a last line stays a line of its own.

        Where the store is not local, lines wait in memory for `sync`, for `flush`, or for half a minute.
        """
        if any("\n" in line for line in lines):
            raise ValueError("a line must not hold a line end")
        with self.explaining("written", name):
            self._files.append(_checked(name), "".join(f"{line}\n" for line in lines).encode(), sync)
        if not self.is_local and time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Bring appended lines to a remote store; a local one has them already."""
        if isinstance(self._files, LocalFiles):
            return
        with self.explaining("written", ""):
            self._files.flush()
        self._flushed = time.monotonic()

    def move(self, source: str, target: str, *, last: str = "") -> None:
        """Rename a file or folder. The target must not exist.

        Remote: copied, then deleted. The file `last` of a folder is copied last and deleted first: it says that all
        of the folder is there.
        """
        with self.explaining("moved", source):
            if isinstance(self._files, LocalFiles):
                self._files.move(_checked(source), _checked(target))
            else:
                self._files.move(_checked(source), _checked(target), last)

    def rename(self, name: str, *, leaving: str = "") -> Store:
        """Rename the base itself; returns the store at its new place, `sibling(name)`.

        Remote: each thing in it is moved, but for `leaving`.
        """
        target = self.sibling(name)
        with self.explaining("moved", ""):
            if isinstance(self._files, LocalFiles):
                LocalFiles(self._files.root.parent).move(self._files.root.name, name)
            else:
                parent, _, old = self._files.base.rpartition("/")
                self._files.flush()
                above = self._files.below(parent)
                for entry in self.list():
                    if entry != leaving:
                        above.move(f"{old}/{entry}", f"{name}/{entry}")
                self._files.forget()
        return target

    def delete(self, name: str) -> None:
        """Delete the file if it is there."""
        with self.explaining("deleted", name):
            self._files.delete(_checked(name))

    def delete_tree(self, name: str) -> None:
        """Delete the folder and all in it, or the file, if it is there."""
        with self.explaining("deleted", name):
            self._files.delete_tree(_checked(name))

    def make_folder(self, name: str = "") -> None:
        with self.explaining("made", name):
            self._files.make_folder(_checked(name))

    @contextmanager
    def explaining(self, action: str, name: str) -> Iterator[None]:
        """OSError inside the block becomes CheckpointError: the file `name` could not be `action`."""
        try:
            yield
        except OSError as error:
            raise _explain(error, action, self.describe(name)) from error


def _checked(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no name inside a store")
    return name.strip("/")


def _refuse_secrets(uri: str) -> None:
    if has_secret(uri):
        raise ConfigError(
            "an address must not hold credentials: it would be shown, and written into the run folder",
            where="run.storage",
            found=hidden(uri),
            fix="leave them to environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a credentials file",
        )


_REMEDIES: dict[int | None, str] = {
    errno.ENOSPC: "free some space, or set run.storage to a larger disk; then rerun the command",
    errno.EDQUOT: "your quota is used up: free some space, or set run.storage elsewhere",
    errno.EFBIG: "the file is larger than this disk or its limits admit (see `ulimit -f`): set run.storage elsewhere",
    errno.EACCES: "ask for permission, or set run.storage to a folder of yours",
    errno.EPERM: "ask for permission, or set run.storage to a folder of yours",
    errno.EROFS: "the disk is read-only: set run.storage elsewhere",
    errno.ENOTDIR: "a file has the name of a folder of the run: move it away, or set run.name to another name",
    errno.EISDIR: "a folder has the name of a file of the run: move it away",
    errno.EEXIST: "something has this name already: move it away",
    errno.ENOTEMPTY: "something has this name already: move it away",
    errno.ENOENT: "check the name of the run and run.storage",
    errno.EIO: "the disk reports a fault: check it, and set run.storage to another one",
}


def _explain(error: OSError, action: str, where: str) -> CheckpointError:
    unreachable = "check that the storage can be reached and is the right one; then rerun the command to resume"
    remedy = _REMEDIES.get(error.errno, unreachable)
    found = hidden(error.strerror or str(error) or type(error).__name__)
    return CheckpointError(f"a file of the run could not be {action}", where=where, found=found, fix=remedy)
