"""Where finished parts wait until the file is complete: beside it, one file each, so that a kill loses little.

A part is written whole or not at all, and under its number: however often it is computed, and by whom, it is there
once. `job.json` says which images, which weights and which options the parts are of.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from raycls.config.paths import expand
from raycls.errors import CheckpointError
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.session.computing.parted import JOB, check_job, held
from raycls.session.predictions.compute import Part, Work
from raycls.session.predictions.output import form_of, write_file

__all__ = ["Folder", "InMemory", "Parts", "Target"]

_PART = re.compile(r"part-(\d{5,})\.npz")
_DAMAGED = (ValueError, KeyError, zipfile.BadZipFile, EOFError)
"""What reading a file raises that is not a whole part."""


class Target:
    """The file that `--out` names, on a disk or in an object store."""

    def __init__(self, out: str) -> None:
        self.form = form_of(out)
        if "://" in out and not out.startswith("file://"):
            self.store, self.name = Store.around(out)
            self.store.check()
        else:
            path = Path(os.path.abspath(expand(out.removeprefix("file://"), where="--out")))
            self.name, self.store = path.name, Store(path.parent)

    @property
    def shown(self) -> str:
        return self.store.describe(self.name)

    @property
    def parts(self) -> Store:
        """The folder of the parts: beside the file."""
        return self.store.sub(f"{self.name}.parts")

    def exists(self) -> bool:
        return self.store.exists(self.name)

    @property
    def has_parts(self) -> bool:
        """Whether an earlier command was ended before the file was complete."""
        return self.parts.exists(JOB)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """What cannot be written is told in the words of this command."""
        try:
            yield
        except CheckpointError as error:
            if not isinstance(error.__cause__, OSError) or not (error.where or "").startswith(self.shown):
                raise
            raise CheckpointError(
                "the predictions cannot be written",
                where=error.where,
                found=error.found,
                fix="make room or get permission there and rerun the command to resume, or choose another --out FILE",
            ) from error.__cause__

    def write(self, work: Work, parts: Iterable[Part]) -> None:
        """Write all rows. The file appears complete, in place of an older one, or not at all."""
        local = self.store.local_path(self.name)
        with self.store.explaining("written", self.name):
            if local is None:
                with tempfile.TemporaryDirectory(prefix="raycls-") as folder:
                    file = Path(folder, self.name)
                    write_file(file, self.form, work, parts)
                    self.store.upload_file(file, self.name)
                return
            local.parent.mkdir(parents=True, exist_ok=True)
            temporary = local.with_name(f".{local.name}.{os.getpid()}.tmp")
            try:
                write_file(temporary, self.form, work, parts)
                with open(temporary, "rb") as written:
                    os.fsync(written.fileno())
                temporary.replace(local)
            finally:
                temporary.unlink(missing_ok=True)


class Parts(Protocol):
    """Where finished parts are kept."""

    def done(self) -> set[int]:
        """The numbers of those that are there."""
        ...

    def add(self, part: Part) -> None: ...

    def all(self, count: int) -> Iterator[Part]:
        """The parts from 0 to `count`, in order."""
        ...


class InMemory:
    """Parts of what is done in a moment."""

    def __init__(self) -> None:
        self._parts: dict[int, Part] = {}

    def done(self) -> set[int]:
        return set(self._parts)

    def add(self, part: Part) -> None:
        self._parts[part.number] = part

    def all(self, count: int) -> Iterator[Part]:
        return (self._parts[number] for number in range(count))


class Folder:
    """Parts in a folder, for one command at a time."""

    def __init__(self, store: Store) -> None:
        self._folder = RunFolder(store)
        self._store = store

    @contextmanager
    def opened(self, job: Mapping[str, Any], *, anew: bool) -> Iterator[None]:
        """Hold the folder for `job`. With `anew`, what is there is deleted. The folder goes when the block ends well.

        ConfigError where the parts that are there are of another job.
        """
        with held(self._folder, "predict", what="another command is predicting into this file"):
            if anew:
                self._clear()
            before = self._folder.read_json(JOB)
            what = "an earlier command left parts of other predictions for this file"
            check_job(self._folder, job, before, what=what)
            yield
            self._clear()
        self._store.delete_tree("")

    def take_over(self, job: Mapping[str, Any]) -> list[str] | None:
        """Have the folder, which the caller holds, be for `job`. Parts of another one are deleted: the names of what
        differs of that, or None where there are none.
        """
        before = self._folder.read_json(JOB)
        if before == job:
            return None
        self._clear()
        self._folder.write_json(JOB, job)
        return None if before is None else [name for name, value in job.items() if before.get(name) != value]

    def done(self) -> set[int]:
        return {int(match[1]) for name in self._store.list() if (match := _PART.fullmatch(name))}

    def add(self, part: Part) -> None:
        self._store.write_bytes(_name(part.number), part.to_bytes())

    def all(self, count: int) -> Iterator[Part]:
        return map(self._read, range(count))

    def whole(self) -> dict[int, Part]:
        """The parts that are there, by their numbers, without those whose files are damaged."""
        found: dict[int, Part] = {}
        for number in sorted(self.done()):
            with suppress(*_DAMAGED):
                found[number] = Part.from_bytes(self._store.read_bytes(_name(number)))
        return found

    def _read(self, number: int) -> Part:
        name = _name(number)
        data = self._store.read_bytes(name)
        try:
            return Part.from_bytes(data)
        except _DAMAGED as error:
            raise CheckpointError(
                "a part of the predictions is damaged",
                where=self._store.describe(name),
                found=str(error),
                fix="delete this file and rerun the command: the part is computed again",
            ) from error

    def _clear(self) -> None:
        for name in (JOB, *(_name(number) for number in sorted(self.done()))):
            self._store.delete(name)


def _differing(before: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    return [name for name, value in job.items() if before.get(name) != value]


def _name(number: int) -> str:
    return f"part-{number:05d}.npz"
