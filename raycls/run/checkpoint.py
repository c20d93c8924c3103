"""Checkpoints that are complete or invisible: written off the training path, verified, and only then trusted.

`checkpoints/step-00001234/` is one checkpoint (see `checkpoint_files`). Order of a write: all files and the manifest
into a hidden folder, each on the disk (fsync); one rename; read back and verified; `best.json`; only then are
older ones deleted. A remote store has no rename, so there the manifest, put last and deleted first, is what makes
a checkpoint complete: what has none was left by an interrupted write or deletion, and is cleared away. Only the
holder of the run folder's lock may write here.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raycls.errors import CheckpointError, RayclsError
from raycls.progress import progress
from raycls.run import checkpoint_files, strict_json
from raycls.run.checkpoint_files import BadCheckpointError
from raycls.run.folder import RunFolder
from raycls.run.snapshot import Snapshot
from raycls.run.storage.store import Store

__all__ = ["Writer", "commit", "intact", "load", "newest"]

_REPLACED = re.compile(r"\.replaced-step-(\d+)")


class Writer:
    """Writes snapshots in a thread of its own, one at a time, while the training goes on."""

    def __init__(self, folder: RunFolder, keep: int) -> None:
        if keep < 1:
            raise ValueError("keep must be 1 or more")
        self._folder = folder
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raycls-checkpoints")
        self._write: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def error(self) -> RayclsError | None:
        """Why the last write failed, until `submit` or `wait` raised it. Does not wait."""
        return _failure(self._write) if self._write is not None and self._write.done() else None

    def submit(self, state: Snapshot, *, best: Mapping[str, Any] | None = None, hold: int = 0) -> None:
        """Have `state` written and return at once; while an earlier one is being written, wait for that first.

        `best` (`{"step", "metric", "value"}`) makes it the best one, once it is verified. The checkpoint of the step
        `hold` stays. Raises the error of the earlier write; `state` is not taken then.
        """
        self.wait()
        self._write = self._pool.submit(commit, self._folder, state, keep=self._keep, best=best, hold=hold)

    def settle(self) -> None:
        """Return when nothing is being written. An error stays for `error`, `submit` and `wait`."""
        if self._write is not None:
            self._write.exception()

    def wait(self) -> None:
        """Return when nothing is left to write. Raises the error of the last write, once."""
        if self._write is None:
            return
        if not self._write.done():
            progress("waiting until the checkpoint is written")
        error = _failure(self._write)
        self._write = None
        if error is not None:
            raise error

    def close(self) -> None:
        """Finish what was submitted and end the thread. Raises nothing: `wait` before, or look at `error`."""
        self._pool.shutdown(wait=True)


def _failure(write: Future[None]) -> RayclsError | None:
    error = write.exception()
    if error is None or isinstance(error, RayclsError):
        return error
    wrapped = CheckpointError("a checkpoint could not be written", found=f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def intact(folder: RunFolder) -> list[int]:
    """Steps whose checkpoint is as it was written, ascending. All of them are read."""
    return [step for step in folder.steps() if checkpoint_files.is_good(folder.store, folder.checkpoint(step), step)]


def load(folder: RunFolder, step: int) -> Snapshot:
    """The checkpoint of `step`. Raises CheckpointError where it is missing or not what was written."""
    try:
        return checkpoint_files.read(folder.store, folder.checkpoint(step), step)
    except BadCheckpointError as error:
        others = [str(there) for there in intact(folder)]
        raise CheckpointError(
            "this checkpoint cannot be used",
            where=folder.store.describe(folder.checkpoint(step)),
            found=str(error),
            valid=f"one of the steps {', '.join(others) or '(none)'}",
        ) from error


def newest(folder: RunFolder, *, on_bad: Callable[[str], None], repair: bool = True) -> Snapshot | None:
    """The newest checkpoint that is verified, None where there is none.

    A bad one is moved to `checkpoints/bad-step-...`, `on_bad` gets a sentence about it, and the one before it
    is used. What an interrupted write left is cleared away, and `best.json` is made to agree. With
    `repair=False`, for readers without the lock, nothing in the folder is touched.
    """
    if repair:
        _clear_leftovers(folder)
    for step in reversed(_present(folder)):
        name = folder.checkpoint(step)
        try:
            found = checkpoint_files.read(folder.store, name, step)
        except BadCheckpointError as error:
            where = _put_aside(folder, step) if repair else folder.store.describe(name)
            on_bad(f"the checkpoint of step {step} is bad and is not used: {error} ({where})")
            continue
        if repair:
            _repair_best(folder, checkpoint_files.manifest(folder.store, name, step)["best"])
        return found
    if repair:
        folder.store.delete(folder.BEST)
    return None


def commit(
    folder: RunFolder, state: Snapshot, *, keep: int, best: Mapping[str, Any] | None = None, hold: int = 0
) -> None:
    """Write `state`, verify it, then delete what is older than the `keep` newest, but for the best and that of `hold`.

    `best` (`{"step", "metric", "value"}`) makes this checkpoint the best one. Raises CheckpointError; the
    checkpoints that were there before are still there then.
    """
    if best is not None and best["step"] != state.step:
        raise ValueError(f"the best checkpoint is that of step {best['step']}, this one is of step {state.step}")
    standing = best if best is not None else folder.read_json(folder.BEST)
    if folder.store.is_local:
        _commit_local(folder, state, standing)
    else:
        _commit_remote(folder, state, standing)
    try:
        checkpoint_files.verify(folder.store, folder.checkpoint(state.step), state.step)
    except BadCheckpointError as error:
        raise CheckpointError(
            "the checkpoint just written does not read back as it was written",
            where=_put_aside(folder, state.step),
            found=str(error),
            fix="check the disk, then rerun the command to resume from the checkpoint before it",
        ) from error
    if best is not None:
        folder.write_json(folder.BEST, best)
    _rotate(folder, keep, hold, standing)


def _commit_local(folder: RunFolder, state: Snapshot, best: Mapping[str, Any] | None) -> None:
    store, name = folder.store, folder.checkpoint(state.step)
    staging = f"{folder.CHECKPOINTS}/.step-{state.step:08d}.{os.getpid()}"
    store.delete_tree(staging)
    try:
        described = checkpoint_files.write(store, staging, state, best)
        if not _is_there(folder, state.step, described):
            _make_way(folder, state.step)
            store.move(staging, name)
    finally:
        store.delete_tree(staging)


def _commit_remote(folder: RunFolder, state: Snapshot, best: Mapping[str, Any] | None) -> None:
    store, name = folder.store, folder.checkpoint(state.step)
    staging = Path(tempfile.mkdtemp(prefix=f"raycls-{os.getpid()}-checkpoint"))  # swept up after a kill
    try:
        described = checkpoint_files.write(Store(staging), "", state, best)
        store.flush()  # history and ledger are never behind a checkpoint
        if not _is_there(folder, state.step, described):
            _make_way(folder, state.step)
            for file in [*described["files"], checkpoint_files.MANIFEST]:
                store.upload_file(staging / file, f"{name}/{file}")
    finally:
        shutil.rmtree(staging)


def _is_there(folder: RunFolder, step: int, described: Mapping[str, Any]) -> bool:
    """Whether a good checkpoint of this step with the same content is there already."""
    try:
        there = checkpoint_files.verify(folder.store, folder.checkpoint(step), step)
    except BadCheckpointError:
        return False
    return there["files"] == described["files"] and there["best"] == described["best"]


def _make_way(folder: RunFolder, step: int) -> None:
    name = folder.checkpoint(step)
    if not folder.store.exists(name):
        return
    if not checkpoint_files.is_good(folder.store, name, step):
        _put_aside(folder, step)
        return
    aside = f"{folder.CHECKPOINTS}/.replaced-step-{step:08d}"
    folder.store.delete_tree(aside)
    folder.store.move(name, aside, last=checkpoint_files.MANIFEST)


def _rotate(folder: RunFolder, keep: int, hold: int, best: Mapping[str, Any] | None) -> None:
    _clear_leftovers(folder)
    present = _present(folder)
    kept = {hold, *present[-keep:]}
    if best is not None:
        kept.add(int(best["step"]))
    for step in present:
        if step in kept:
            continue
        name = folder.checkpoint(step)
        if folder.store.is_local:
            hidden = f"{folder.CHECKPOINTS}/.old-step-{step:08d}"
            folder.store.move(name, hidden)
            folder.store.delete_tree(hidden)
        else:
            folder.store.delete(f"{name}/{checkpoint_files.MANIFEST}")  # without it the rest is no checkpoint
            folder.store.delete_tree(name)


def _clear_leftovers(folder: RunFolder) -> None:
    for name in folder.store.list(folder.CHECKPOINTS):
        path = f"{folder.CHECKPOINTS}/{name}"
        replaced = _REPLACED.fullmatch(name)
        if replaced:
            _settle_replaced(folder, path, int(replaced[1]))
        elif name.startswith((".step-", ".old-step-")):
            folder.store.delete_tree(path)
    if not folder.store.is_local:
        complete = set(folder.steps())
        for step in _present(folder):
            if step not in complete:
                folder.store.delete_tree(folder.checkpoint(step))


def _settle_replaced(folder: RunFolder, path: str, step: int) -> None:
    """A second write of a step may have been cut off: keep the new one if it is whole, else the old one."""
    name = folder.checkpoint(step)
    if not checkpoint_files.is_good(folder.store, name, step) and checkpoint_files.is_good(folder.store, path, step):
        folder.store.delete_tree(name)
        folder.store.move(path, name, last=checkpoint_files.MANIFEST)
    else:
        folder.store.delete_tree(path)


def _present(folder: RunFolder) -> list[int]:
    """Steps with anything that has the name of a checkpoint, good or bad, ascending."""
    found = (re.fullmatch(r"step-(\d{8,})", name) for name in folder.store.list(folder.CHECKPOINTS))
    return sorted(int(match[1]) for match in found if match)


def _put_aside(folder: RunFolder, step: int) -> str:
    base = f"{folder.CHECKPOINTS}/bad-step-{step:08d}"
    target, number = base, 1
    while folder.store.exists(target):
        number += 1
        target = f"{base}-{number}"
    folder.store.move(folder.checkpoint(step), target, last=checkpoint_files.MANIFEST)
    return folder.store.describe(target)


def _repair_best(folder: RunFolder, best: Mapping[str, Any] | None) -> None:
    """A crash between a checkpoint and `best.json`, or a fall back, leaves the two apart."""
    if best is None or not folder.store.exists(folder.checkpoint(int(best["step"]))):
        folder.store.delete(folder.BEST)
        return
    text = (strict_json.dumps(best, indent=2) + "\n").encode()
    if folder.store.find_bytes(folder.BEST) != text:
        folder.store.write_bytes(folder.BEST, text)
