"""Source `folder`: one directory per class, optionally below one directory per split.

photos/cat/1.jpg                  photos/train/cat/1.jpg
photos/dog/deep/down/2.png        photos/test/dog/2.png
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from raycls.data.ignore import ignorer, leaving_out, patterns_of
from raycls.data.samples import Keys, Samples
from raycls.data.sources.layout import Peek, split_folders, told
from raycls.data.sources.remote.places import Entry, Place, place_of
from raycls.errors import DataError
from raycls.progress import progress
from raycls.quantities import first_names

__all__ = ["LITTER", "SUFFIXES", "folder"]

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
)
_TOLD = 1000
"""After so many files it is said how many there were."""
LITTER = frozenset(("thumbs.db", "desktop.ini"))


def folder(
    path: str | Path,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    splits: Mapping[str, str] | str | None = None,
) -> Samples:
    """Images in one directory per class. Below a class, images may be at any depth.

    Directories directly in `path` that are named like splits (train, training_set, Val, dev, holdout ...) are
    splits. `splits` names others (`{Fold1: train, Fold2: test}`; several may be one split), or is `none` where the
    directories are classes although they hold the same sub-directories. Hidden files and directories, `Thumbs.db`
    and `desktop.ini` are left out, and so is what matches a pattern of `ignore` (`*.txt`, `drafts`,
    `train/cat/old`; a name or a path below `path`) or of the file `ignore_file`, one a line. Links are followed; a
    link back to a directory above it adds nothing. Any other file is a DataError: a data set with files nobody
    meant is not the one that was meant.
    """
    place = place_of(path)
    root = place.locate("")
    given = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    scan = _Scan(place, ignorer(patterns_of(given, ignore_file)), given)
    top = scan.directories("", "a class or split folder")
    names = [name for name, _ in top]
    if not names:
        raise DataError(
            "the data folder holds no class folders",
            where=root,
            valid="one folder of images per class, or train/, val/ and test/ with one folder per class each",
        )
    found = split_folders(root, names, scan.peek, splits, given)
    if found is None:
        groups = [(None, top)]
    else:
        for above in sorted({str(folder) for name in found for folder in PurePosixPath(name).parents} - {"."}):
            scan.directories(above, "a split folder")  # files there are loose
        groups = [(split, scan.directories(name, "a class folder")) for name, split in found.items()]
    keys: list[str] = []
    counts: list[tuple[str | None, str, int]] = []
    for split, classes in groups:
        for label, relative in classes:
            files = sorted(scan.images(relative))
            if not files and not scan.took_from(relative):
                scan.empty.append(relative)
            keys.extend(files)
            counts.append((split, label, len(files)))
    scan.complain(keys)
    return _samples(place, keys, counts, notes=told(found))


def _samples(
    place: Place, keys: list[str], counts: list[tuple[str | None, str, int]], *, notes: Sequence[str]
) -> Samples:
    classes = sorted({label for _, label, count in counts if count})
    number = {label: index for index, label in enumerate(classes)}
    labels = np.repeat(
        np.array([number.get(label, -1) for _, label, _ in counts], dtype=np.int64), [count for _, _, count in counts]
    )
    splits: dict[str, list[np.ndarray]] = {}
    start = 0
    for split, _, count in counts:
        if split is not None:
            splits.setdefault(split, []).append(np.arange(start, start + count))
        start += count
    packed = Keys(keys)
    return Samples(
        classes=classes,
        labels=labels,
        keys=packed,
        reader=place.reader(packed),
        splits={name: np.concatenate(rows) for name, rows in splits.items()} or None,
        notes=notes,
    )


@dataclass
class _Scan:
    """A walk over the folder that collects everything that is wrong before it says so."""

    place: Place
    ignored: Callable[[str], bool]
    given: tuple[str, ...]
    """The patterns of the argument `ignore`."""
    strangers: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set[str])
    """Directories from which a pattern took something."""
    seen: int = 0
    """Files and directories so far."""

    def directories(self, relative: str, meant: str) -> list[tuple[str, str]]:
        """Name and relative path of the directories directly in `relative`, sorted; files there are loose."""
        found: list[tuple[str, str]] = []
        for entry, path in self._entries(relative):
            if entry.is_dir():
                found.append((entry.name, path))
            else:
                self.loose.append(path)
        if relative and not found:
            raise DataError(
                "a split folder holds no class folders",
                where=self.place.locate(relative),
                valid=meant,
                fix=f"add one folder of images per class, or {leaving_out([relative], (), self.given)}",
            )
        return sorted(found)

    def peek(self, relative: str, *, whole: bool = False) -> Peek:
        """What a directory holds directly; unless `whole`, as far as its first image."""
        folders: list[str] = []
        images = False
        for entry, _ in self._entries(relative):
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                images = True
                if not whole:
                    break
        return Peek(tuple(sorted(folders)), images)

    def images(self, relative: str) -> Iterator[str]:
        """Relative paths of the images below a directory, in no particular order."""
        parts = relative.split("/")
        outer = tuple(self.place.identity("/".join(parts[:depth])) for depth in range(len(parts)))
        pending: list[tuple[str, tuple[Hashable, ...]]] = [(relative, outer)]
        while pending:
            directory, above = pending.pop()
            if (identity := self.place.identity(directory)) in above:
                continue  # a link back up: what it leads to is seen anyway, and may be of other classes
            above = (*above, identity)
            for entry, path in self._entries(directory):
                if entry.is_dir():
                    pending.append((path, above))
                elif os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
                    self.strangers.append(path)
                elif entry.is_file():
                    yield path
                else:  # a link to nothing, or a pipe that would be waited on for ever
                    self.broken.append(path)

    def _entries(self, relative: str) -> Iterator[tuple[Entry, str]]:
        try:
            for entry in self.place.entries(relative):
                path = f"{relative}/{entry.name}" if relative else entry.name
                self.seen += 1
                if self.seen % _TOLD == 0:
                    progress("looking at the files of the data", self.seen, unit="files")
                if not self._ignored(entry.name, path):
                    yield entry, path
        except OSError as error:
            raise DataError(
                "cannot read the data folder",
                where=self.place.locate(relative),
                found=error.strerror or str(error),
                valid="an existing folder that this user may list",
                fix="check data.source.path" if not relative else None,
            ) from error

    def _ignored(self, name: str, path: str) -> bool:
        if name.startswith(".") or name.lower() in LITTER:
            return True
        if self.ignored(path):
            self.taken.add(path.rpartition("/")[0])
            return True
        return False

    def took_from(self, relative: str) -> bool:
        """Whether a pattern took something from a directory or from one below it."""
        return any(f"{path}/".startswith(f"{relative}/") for path in self.taken)

    def complain(self, images: Sequence[str]) -> None:
        """DataError where the walk met anything that is no part of a data set, whose `images` must stay."""
        if self.loose:
            raise self._error(
                "there are files beside the class folders",
                self.loose,
                images,
                valid="each image inside the folder of its class",
            )
        if self.strangers:
            raise self._error(
                "there are files among the images that are not images",
                self.strangers,
                images,
                valid=f"files named {' '.join(sorted(SUFFIXES))}",
            )
        if self.broken:
            raise self._error(
                "some entries are named like images but are not files",
                self.broken,
                images,
                valid="files, or links to files that exist",
            )
        if self.empty:
            raise self._error(
                "some class folders hold no image", self.empty, images, valid="at least one image per class folder"
            )

    def _error(self, what: str, paths: list[str], images: Sequence[str], *, valid: str) -> DataError:
        paths = sorted(paths)
        remedy = leaving_out(paths, images, self.given, [*self.loose, *self.strangers, *self.broken])
        return DataError(
            what,
            where=self.place.locate(""),
            found=first_names(paths),
            valid=valid,
            fix=f"move or remove them, or {remedy}",
        )
