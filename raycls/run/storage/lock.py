"""One writer per run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from raycls.errors import LaunchError, RayclsError
from raycls.progress import progress
from raycls.run.storage.lease import SILENCE, Lease, holder, is_of_the_dead, signature
from raycls.run.storage.store import Store

__all__ = ["HANDOVER_SECONDS", "Lock", "user_of"]

HANDOVER_SECONDS = 60.0
"""How long a new process waits for the one that wrote before it: a killed one is gone within seconds."""
_POLL = 0.1
_REMOTE_POLL = 1.0
_QUIET_SECONDS = 1.0
"""Seconds that are waited without a word."""
_FROZEN_SECONDS = 10.0
"""After so long a process of the same family takes the lock from one that does not end: Ray kills a process and starts
the next one, but one on a node that is frozen or cut off cannot be killed, and the kernel keeps its lock."""
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_logger = logging.getLogger("raycls")


class _HasStore(Protocol):
    @property
    def store(self) -> Store: ...


class Lock:
    """Held by the process that writes to a run folder; the kernel frees it when that process ends, however.

    `with Lock(folder, "train"): ...`. Waits up to `timeout` seconds for another holder, then raises LaunchError
    that names it; `say` hears of a wait that is longer than a moment. A store that is not local has a lease instead,
    see `Lease`: look at `error` before relying on it. There a wait ends only when the holder is known to live, or dead.

    Of the processes of one `family` only the newest is meant to write: it takes the lock over after a while, and the
    earlier one, if it ever goes on, learns of it by `error`.
    """

    def __init__(
        self,
        folder: _HasStore,
        purpose: str,
        *,
        timeout: float = 0.0,
        say: Callable[[str], None] = lambda text: None,
        family: str = "",
    ) -> None:
        self.path: Path | None = folder.store.local_path("lock")
        self._store = folder.store
        self._purpose = purpose
        self._timeout = timeout
        self._say = say
        self._family = family
        self._descriptor: int | None = None
        self._lease: Lease | None = None

    @property
    def error(self) -> RayclsError | None:
        """Why the folder must not be written to any more: another process took the lock over. None otherwise."""
        if self._lease is not None:
            return self._lease.error
        if self._descriptor is None or self.path is None or _is_at(self._descriptor, self.path):
            return None
        return LaunchError(
            "another process has taken over this run folder: this one stood still for too long",
            where=self._store.describe(),
            found=self._holder(None),
            fix="let the other one run",
        )

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock. Makes the run folder where it is missing."""
        if self._descriptor is not None or self._lease is not None:
            return
        lease = Lease(self._store, self._purpose) if self.path is None else None
        began, told = time.monotonic(), False
        while not (lease.try_acquire() if lease is not None else self._try()):
            waited = time.monotonic() - began
            if waited >= _FROZEN_SECONDS and self._is_of_family():
                self._take_over()
                continue
            if waited >= self._timeout and (lease is None or lease.is_certain):
                raise self._refusal(lease)
            if waited >= _QUIET_SECONDS and not told:
                longest = max(self._timeout, SILENCE + _QUIET_SECONDS) if lease is not None else self._timeout
                self._say(f"waiting up to {longest:.0f} s for the run folder: used by {self._holder(lease)}")
                told = True
                progress("waiting for the run folder")
            time.sleep(_POLL if lease is None else _REMOTE_POLL)
        self._lease = lease

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            lease.release()
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _try(self) -> bool:
        path = self.path
        if path is None:
            return False
        self._store.make_folder()
        with self._store.explaining("opened", "lock"):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                if path.parent.exists():
                    raise
                return False  # the folder was set aside since it was made
        taken = False
        try:
            taken = _flock(descriptor, path) and _is_at(descriptor, path)
            if taken:
                self._sign(descriptor)
        finally:
            if not taken:
                os.close(descriptor)
        if taken:
            self._descriptor = descriptor
            _held.add(self)
        return taken

    def _is_of_family(self) -> bool:
        return bool(self._family) and self.path is not None and _signature(self.path).get("family") == self._family

    def _take_over(self) -> None:
        """Make place for a new file: the old one's holder keeps a lock on what has no name any more."""
        if self.path is not None:
            self._say(f"warning: the run folder is taken over from {self._holder(None)}, which does not end")
            self.path.unlink(missing_ok=True)

    def _sign(self, descriptor: int) -> None:
        signed = {**signature(self._purpose), **({"family": self._family} if self._family else {})}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(signed) + "\n").encode(), 0)

    def _holder(self, lease: Lease | None) -> str:
        return lease.holder() if lease is not None else holder(_signature(self.path)) if self.path else ""

    def _refusal(self, lease: Lease | None) -> LaunchError:
        return LaunchError(
            "another process is using this run folder",
            where=self._store.describe(),
            found=self._holder(lease),
            valid="one process at a time",
            fix="wait for it to end or stop it, or set run.name to another name",
        )


def user_of(folder: _HasStore) -> str:
    """Which process uses the folder, for messages; empty where none does. Nothing is locked, so it disturbs nobody.

    A process of another host that was killed has left its name, and counts as one that uses it.
    """
    path = folder.store.local_path("lock")
    if path is not None:
        signed = [_signature(path)]
    else:
        found = [folder.store.find_bytes(f"lock/{name}") for name in folder.store.list("lock")]
        signed = [_read(data) for data in found if data is not None]
    return next((holder(each) for each in signed if each and not is_of_the_dead(each)), "")


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _drop_in_child() -> None:
    # A forked child shares the open file, and with it the lock: it would hold it after its parent's death.
    for lock in list(_held):
        if lock._descriptor is not None:
            os.close(lock._descriptor)
            lock._descriptor = None
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


def _flock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _logger.warning("%s: this file system has no locks; do not start the same run twice", path.parent)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file: the folder may have been set aside while we waited."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _signature(path: Path) -> dict[str, Any]:
    try:
        return _read(path.read_bytes())
    except OSError:
        return {}


def _read(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
