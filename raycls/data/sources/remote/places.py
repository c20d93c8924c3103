"""Where the files of a data set are, a local folder or an address, as the sources ask about them."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import IO, Any, Protocol

import numpy as np

from raycls.data.samples import Files, Keys, Reader
from raycls.data.sources.remote.address import Address, is_remote, listed, parse, read
from raycls.data.sources.remote.objects import THREADS, Objects
from raycls.errors import DataError
from raycls.progress import counted

__all__ = ["Entry", "Local", "Place", "Remote", "addressed", "file_of", "place_of"]

_PATH = "data.source.path"


class Entry(Protocol):
    """Something in a folder, as `os.DirEntry` has it."""

    @property
    def name(self) -> str: ...
    def is_dir(self) -> bool: ...
    def is_file(self) -> bool: ...


class Place(Protocol):
    """Files below a root. Names are relative to it, with `/` between folders; the empty one is the root itself."""

    def locate(self, name: str) -> str:
        """The path or address of a file, for messages."""
        ...

    def entries(self, name: str) -> Iterator[Entry]:
        """What a folder holds directly, in no particular order. Raises OSError."""
        ...

    def identity(self, name: str) -> Hashable:
        """What is equal for two names of one folder."""
        ...

    def is_file(self, name: str) -> bool: ...
    def missing(self, names: Sequence[str]) -> list[int]:
        """The positions of the names that are no files."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """The file, to be read. Raises OSError."""
        ...

    def files(self, suffix: str | tuple[str, ...]) -> list[str]:
        """The files to any depth whose names end so, sorted; hidden ones and those in hidden folders are left out."""
        ...

    def names(self) -> list[str]:
        """The names of the files directly in the root, sorted."""
        ...

    def is_folder(self) -> bool:
        """Whether the root is a folder and not a file."""
        ...

    def reader(self, names: Keys) -> Reader:
        """Reads the files `names`, each an image."""
        ...


def place_of(path: str | os.PathLike[str], *, where: str = _PATH) -> Place:
    """The place that an option holds, an address or a path; `where` names the option. ConfigError for an address with
    credentials."""
    if is_remote(path):
        return Remote(parse(os.fspath(path), where=where))
    return Local(os.path.abspath(path))


def file_of(path: str | os.PathLike[str], *, where: str = _PATH) -> tuple[Place, str]:
    """The folder that a file is in, as a place, and its name there."""
    if is_remote(path):
        address = parse(os.fspath(path), where=where)
        folder, _, name = address.path.rpartition("/")
        return Remote(replace(address, path=folder)), name
    folder, name = os.path.split(os.path.abspath(path))
    return Local(folder), name


def addressed(place: Place, names: Sequence[str]) -> Place:
    """`place`; or, where it is local and all `names` are addresses, a place that finds them. A place with an address
    finds both. DataError where some of the names are addresses and others are paths of this machine."""
    if isinstance(place, Remote) or not any(map(is_remote, names)):
        return place
    local = next((name for name in names if not is_remote(name)), None)
    if local is not None:
        raise DataError(
            "some of the listed paths are addresses and others are local",
            where=place.locate(""),
            found=f"{next(filter(is_remote, names))}, {local}",
            valid="all of them addresses, or all of them local",
            fix="copy the local ones to the object store, and set data.source.args.root to their address",
        )
    return Remote(replace(parse(names[0], where=_PATH), path="", options=""))


@dataclass(frozen=True)
class Local:
    """A folder of this machine."""

    root: str

    def locate(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def entries(self, name: str) -> Iterator[Entry]:
        with os.scandir(self.locate(name)) as entries:
            yield from entries

    def identity(self, name: str) -> Hashable:
        status = os.stat(self.locate(name))
        return status.st_dev, status.st_ino

    def is_file(self, name: str) -> bool:
        return os.path.isfile(self.locate(name))

    def missing(self, names: Sequence[str]) -> list[int]:
        pairs = counted(enumerate(names), "looking for the listed images", len(names), "images")
        return [row for row, name in pairs if not self.is_file(name)]

    def open(self, name: str) -> IO[bytes]:
        return open(self.locate(name), "rb")

    def files(self, suffix: str | tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for directory, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.relpath(directory, self.root)
            found += [os.path.normpath(os.path.join(below, name)) for name in files if name.endswith(suffix)]
        return sorted(name for name in found if not os.path.basename(name).startswith("."))

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.entries("") if entry.is_file())

    def is_folder(self) -> bool:
        return os.path.isdir(self.root)

    def reader(self, names: Keys) -> Files:
        return Files(self.root, names)


@dataclass(frozen=True)
class _Object:
    """An entry of a folder that is the beginning of names."""

    name: str
    folder: bool

    def is_dir(self) -> bool:
        return self.folder

    def is_file(self) -> bool:
        return not self.folder


class Remote:
    """Objects below an address. They are listed when first asked about: thousands with one request."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._known: dict[str, dict[str, tuple[int, int]]] = {}
        """Bytes and time of change of the objects of each folder that was listed, by its address and their names."""

    def locate(self, name: str) -> str:
        return str(self.address.at(name))

    def entries(self, name: str) -> Iterator[Entry]:
        folder = self._tree.get(name)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "no object has a name that begins so", self.locate(name))
        yield from (_Object(child, is_folder) for child, is_folder in folder.items())

    def identity(self, name: str) -> Hashable:
        return name

    def is_file(self, name: str) -> bool:
        return not self.missing([name])

    def missing(self, names: Sequence[str]) -> list[int]:
        return [row for row, (size, _) in enumerate(self.marks(names)) if size < 0]

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(read(self.address.at(name)))

    def files(self, suffix: str | tuple[str, ...]) -> list[str]:
        names = [name for name in listed(self.address, deep=True) if name.endswith(suffix)]
        return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))

    def names(self) -> list[str]:
        return sorted(listed(self.address, deep=False))

    def is_folder(self) -> bool:
        folder, _, name = self.address.path.rpartition("/")
        return Remote(replace(self.address, path=folder)).marks([name])[0][0] < 0

    def __reduce__(self) -> tuple[Any, ...]:  # without what was listed
        return Remote, (self.address,)

    def reader(self, names: Keys) -> Objects:
        marks = np.array(self.marks(names), np.int64).reshape(-1, 2)
        return Objects(self.address, names, marks[:, 0].copy(), marks[:, 1].copy())

    @cached_property
    def _tree(self) -> dict[str, dict[str, bool]]:
        """Of each folder what it holds directly, and whether that is a folder."""
        folders: dict[str, dict[str, bool]] = {}
        for name, mark in listed(self.address, deep=True).items():
            folder, is_folder = name, False
            self._known.setdefault(self.locate(name.rpartition("/")[0]), {})[name.rpartition("/")[2]] = mark
            while folder:
                above, _, child = folder.rpartition("/")
                known = above in folders
                folders.setdefault(above, {})[child] = is_folder
                if known:
                    break
                folder, is_folder = above, True
        return folders

    def marks(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Bytes and time of change of each object; -1 and 0 of one that is not there. Its folder is listed for that."""
        places = [self.address.at(name) for name in names]
        folders = {str(folder): folder for folder in {replace(place, path=_folder(place.path)) for place in places}}
        unknown = [folder for name, folder in folders.items() if name not in self._known]
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda folder: listed(folder, deep=False), unknown)
            for folder, objects in counted(
                zip(unknown, found, strict=True), "listing the objects", len(unknown), "folders"
            ):
                self._known[str(folder)] = objects
        at = ((self._known[str(replace(place, path=_folder(place.path)))], place.path) for place in places)
        return [folder.get(path.rpartition("/")[2], (-1, 0)) for folder, path in at]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
