"""Which files below a folder belong to which class and split: one folder per class, optionally below one per split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from raycls.data.ignore import ignorer, patterns_of
from raycls.data.names import split_of
from raycls.data.sources.folder import LITTER
from raycls.data.sources.layout import Peek, split_folders, told
from raycls.data.sources.remote.address import is_remote
from raycls.errors import DataError
from raycls.progress import progress

__all__ = ["Group", "Walk", "local"]


@dataclass(frozen=True)
class Group:
    """What is in one class folder."""

    split: str | None
    label: str
    files: tuple[str, ...]
    """Paths relative to the root, sorted."""


class Walk:
    """The files below a folder, without hidden ones and those that a pattern leaves out."""

    def __init__(self, path: str, ignore: str | Sequence[str], ignore_file: str | None) -> None:
        self.root = os.path.abspath(local(path))
        self.patterns = patterns_of(ignore, ignore_file)
        self.ignored = ignorer(self.patterns)

    def groups(self, splits: Mapping[str, str] | str | None) -> tuple[list[Group], tuple[str, ...]]:
        """The class folders and what is to be told of how folders were read. DataError where there are none."""
        folders, files = self._entries("")
        if files or not folders:
            raise DataError(
                "there are files beside the class folders" if files else "the data folder holds no class folders",
                where=self.root,
                found=", ".join(files[:3]) if files else "no folder",
                valid="one folder of volumes per class, or train/, val/ and test/ with one folder per class each",
                fix="or name a manifest in data.source.path: a CSV file with the columns path and label",
            )
        found = self._splits(folders, splits)
        groups: list[Group] = []
        if found is None:
            groups = [Group(None, name, tuple(self.files(name))) for name in folders]
        else:
            for name, split in found.items():
                inner = self._entries(name)[0]
                groups += [Group(split, each, tuple(self.files(f"{name}/{each}"))) for each in inner]
        return groups, told(found)

    def files(self, relative: str) -> list[str]:
        """All files below a folder, or the one file itself, sorted."""
        if os.path.isfile(os.path.join(self.root, relative)):
            return [relative]
        return sorted(self._below(relative))

    def _below(self, relative: str) -> Iterator[str]:
        pending, seen = [relative], set[str]()
        while pending:
            folder = pending.pop()
            if (real := os.path.realpath(os.path.join(self.root, folder))) in seen:
                continue  # a link back up
            seen.add(real)
            progress("looking at the files of the data")
            folders, files = self._entries(folder)
            pending += [f"{folder}/{name}" for name in folders]
            yield from (f"{folder}/{name}" for name in files)

    def _entries(self, relative: str) -> tuple[list[str], list[str]]:
        """The names of the folders and of the files directly in a folder, sorted."""
        folder = os.path.join(self.root, relative) if relative else self.root
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if entry.name.startswith(".") or entry.name.lower() in LITTER or self.ignored(path):
                        continue
                    (folders if entry.is_dir() else files).append(entry.name)
        except OSError as error:
            raise DataError(
                "cannot read the data folder",
                where=folder,
                found=error.strerror or str(error),
                valid="an existing folder that this user may list",
                fix="check data.source.path" if not relative else None,
            ) from error
        return sorted(folders), sorted(files)

    def _splits(self, folders: list[str], given: Mapping[str, str] | str | None) -> dict[str, str] | None:
        """The split of each folder, or None where they are classes: what a class holds says nothing, as the folders of
        series are called alike everywhere."""
        if given is not None:
            return split_folders(self.root, folders, self._peek, given, self.patterns)
        found = {name: split for name in folders if (split := split_of(name)) is not None}
        if found and len(found) < len(folders):
            raise DataError(
                "some folders are called like splits and others are not",
                where=self.root,
                found=f"{', '.join(found)}; {', '.join(name for name in folders if name not in found)}",
                valid="train, val and test alone, or classes alone",
                fix="if all of them are classes, set data.source.args.splits=none ; else say there which are splits",
            )
        return found or None

    @property
    def _peek(self) -> Callable[..., Peek]:
        def look(relative: str, *, whole: bool = False) -> Peek:
            folders, files = self._entries(relative)
            return Peek(tuple(folders), bool(files))

        return look


def local(path: str) -> str:
    """`path` where it is one of this machine; DataError for an address."""
    if is_remote(path):
        raise DataError(
            "volumes are read from files of this machine",
            where="data.source.path",
            found=path,
            valid="a folder or a manifest, and paths of this machine in it",
            fix="copy the data here",
        )
    return path
