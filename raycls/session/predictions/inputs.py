"""What is to be predicted: files, folders, globs, manifests and data sources, as one list with one reader."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raycls.config.paths import expand
from raycls.data.samples import Files, Keys, Reader, digest_of
from raycls.data.sources.folder import LITTER, SUFFIXES
from raycls.data.sources.listing.manifest import SUFFIXES as MANIFESTS
from raycls.data.sources.listing.unlabelled import listed_paths
from raycls.data.sources.packed.layout import MANIFEST
from raycls.errors import CheckpointError, ConfigError, DataError
from raycls.progress import counted
from raycls.quantities import plural
from raycls.run.storage.store import Store

__all__ = ["Inputs", "Local", "Remote", "list_inputs"]

_CONFIGS = (".yaml", ".yml")
_GLOB = frozenset("*?[")
_STAT_THREADS, _AT_ONCE = 8, 4096


@dataclass(frozen=True)
class Inputs:
    """The images in their order."""

    keys: Keys
    """How each is called in the output: as it was given, or as a manifest lists it."""
    reader: Reader
    """Reads the image of `keys[i]` at `i`; it travels to other processes."""

    def fingerprint(self) -> str:
        """sha256 over what is predicted: names, and of files their sizes and times of change, in hexadecimal."""
        return digest_of((*self.keys.digest_parts(), *_marks(self.reader)))


def list_inputs(given: Sequence[str], say: Callable[[str], None]) -> Inputs:
    """The images that the words `given` name, each once: in the order of the words, those of a folder by their paths.

    A word is an image file, a folder (searched to any depth for files named like images), a glob, a manifest, an
    `.npz`, packed data, a Parquet file, a config with `data.source`, or an address (`s3://...`) of an image or of what
    begins so. What is left out is told. ConfigError for a word that names nothing.
    """
    found = _Found(say)
    for word in given:
        found.add(word)
    return found.inputs(given)


@dataclass(frozen=True)
class Local(Files):
    """Image files on a disk, whoever listed them: a pipe or a device is not waited for."""

    def read(self, index: int) -> bytes:
        path = self.locate(index)
        if os.path.exists(path) and not os.path.isfile(path):
            raise DataError("a sample is not an image", where=path, found="no file: a folder, a pipe or a device")
        return super().read(index)

    def take(self, rows: np.ndarray) -> Local:
        return Local(self.root, self.names.take(rows))


@dataclass(frozen=True)
class Remote:
    """Image files in an object store."""

    uri: str
    names: Keys
    """Names below `uri`."""
    marks: tuple[bytes, ...] = ()
    """Sizes and times of change, for the fingerprint."""

    @cached_property
    def _store(self) -> Store:
        return Store(self.uri)

    def read(self, index: int) -> bytes:
        try:
            return self._store.read_bytes(self.names[index])
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise DataError("cannot read an image file", where=self.locate(index), found=error.found) from error
            raise  # a storage that is away is no fault of the image

    def locate(self, index: int) -> str:
        return self._store.describe(self.names[index])

    def __reduce__(self) -> tuple[object, ...]:  # without the connection
        return Remote, (self.uri, self.names)


@dataclass(frozen=True)
class _Chained:
    """The samples of several readers, one reader after another."""

    readers: tuple[Reader, ...]
    starts: tuple[int, ...]
    """The position of the first sample of each."""

    def _place(self, index: int) -> tuple[Reader, int]:
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.readers[which], index - self.starts[which]

    def read(self, index: int) -> bytes | np.ndarray:
        reader, row = self._place(index)
        return reader.read(row)

    def locate(self, index: int) -> str:
        reader, row = self._place(index)
        locate = getattr(reader, "locate", None)
        return f"sample {row}" if locate is None else locate(row)


class _Found:
    """Collects what the words name."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._names: list[str] = []
        self._open: tuple[str, list[str]] = "/", []
        """The last files that were named, below a folder or an address: they become one reader."""
        self._readers: list[Reader] = []
        self._starts: list[int] = []
        self._seen: set[str] = set()
        self._twice = 0

    def add(self, word: str) -> None:
        if "://" in word and not word.startswith("file://"):
            self._add_remote(word)
            return
        path = expand(word.removeprefix("file://"), where="INPUT")
        suffix = os.path.splitext(path)[1].lower()
        if os.path.isfile(os.path.join(path, MANIFEST)):
            self._add_source(path)
        elif os.path.isdir(path):
            self._add_folder(path)
        elif os.path.isfile(path) and suffix in MANIFESTS:
            self._add_listed(path)
        elif os.path.isfile(path) and suffix in (*_CONFIGS, ".npz", ".parquet"):
            self._add_source(path)
        elif os.path.exists(path):
            self._add_file(path)
        elif _GLOB & set(path):
            self._add_glob(path)
        else:
            raise ConfigError(
                "an input is not there",
                where=f"INPUT {word}",
                found="nothing there",
                valid="an image file, a folder, a glob in quotes, a manifest "
                f"({' '.join(MANIFESTS)}), an .npz, a config file (.yaml) with data.source, or s3://...",
            )

    def inputs(self, given: Sequence[str]) -> Inputs:
        self._close()
        if self._twice:
            self._say(f"{plural(self._twice, 'file')} named more than once: predicted once")
        if not self._names:
            raise DataError(
                "there is no image to predict",
                where=", ".join(given),
                found="no file that is named like an image",
                valid=f"files named {' '.join(sorted(SUFFIXES))}; one of another name, where it is named itself",
            )
        one = len(self._readers) == 1
        reader = self._readers[0] if one else _Chained(tuple(self._readers), tuple(self._starts))
        return Inputs(Keys(self._names), reader)

    def _add_file(self, path: str) -> None:
        place = os.path.abspath(path)
        if place in self._seen:
            self._twice += 1
            return
        self._seen.add(place)
        self._take(path, "/", place)

    def _take(self, name: str, root: str, place: str) -> None:
        if root != self._open[0]:
            self._close()
            self._open = root, []
        self._names.append(name)
        self._open[1].append(place)

    def _add_folder(self, path: str) -> None:
        others: list[str] = []
        for file in sorted(counted(_below(path, others, self._say), "looking for images", unit="files")):
            self._add_file(file)
        if others:
            shown = ", ".join(sorted(others)[:3]) + (" ..." if len(others) > 3 else "")
            self._say(f"left out of {path}: {plural(len(others), 'file')} not named like images: {shown}")

    def _add_glob(self, pattern: str) -> None:
        found = sorted(glob.iglob(pattern, recursive=True))
        if not found:
            raise ConfigError("a pattern matches no file", where=f"INPUT {pattern}", found="nothing that matches it")
        for path in found:
            if not os.path.isdir(path):  # a link that leads nowhere is an image that cannot be read, as in a folder
                self._add_file(path)
            elif not pattern.endswith("**"):  # which matches all folders, and the files in them
                self._add_folder(path)

    def _add_listed(self, path: str) -> None:
        for written, place in counted(listed_paths(path), "reading the manifest", unit="images"):
            scheme, remote, rest = place.partition("://")
            if remote:
                address, mark, options = rest.partition("?")
                bucket, _, name = address.partition("/")
                self._take(written, f"{scheme}://{bucket}{mark}{options}", name)
            else:
                self._take(written, "/", place)

    def _add_source(self, path: str) -> None:
        from raycls.config.sections.data import DataConfig
        from raycls.data.source import open_pool
        from raycls.session.scoring.other import source_of

        pool = open_pool(DataConfig(source=source_of(path)), least_classes=1)
        for note in pool.notes:
            self._say(note)
        self._add_reader(list(pool.keys), pool.reader)

    def _add_remote(self, uri: str) -> None:
        names, store, marks = _remote(uri)
        shown = [store.describe(name) for name in names]
        self._add_reader(shown, Remote(store.uri, Keys(names), marks))

    def _add_reader(self, names: Sequence[str], reader: Reader) -> None:
        self._close()
        self._starts.append(len(self._names))
        self._names += names
        self._readers.append(reader)

    def _close(self) -> None:
        """Make one reader of the files since the last one."""
        root, places = self._open
        if places:
            self._starts.append(len(self._names) - len(places))
            self._readers.append(Remote(root, Keys(places)) if "://" in root else Local(root, Keys(places)))
            self._open = root, []


def _below(folder: str, others: list[str], say: Callable[[str], None]) -> Iterator[str]:
    """Files below `folder` that are named like images; those that are not are added to `others`.

    Hidden ones are left out. Links are followed, but for one that leads back up.
    """
    above: dict[str, frozenset[tuple[int, int]]] = {}
    for directory, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(directory)
        identity = status.st_dev, status.st_ino
        outer = above.get(directory, frozenset[tuple[int, int]]())
        folders[:] = [] if identity in outer else [name for name in folders if not name.startswith(".")]
        if identity in outer:
            continue
        above.update(dict.fromkeys((os.path.join(directory, name) for name in folders), outer | {identity}))
        for name in files:
            if name.startswith(".") or name.lower() in LITTER:
                continue
            path = os.path.join(directory, name)
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield path
            else:
                others.append(path)


def _refuse(error: OSError) -> None:
    raise DataError(
        "cannot read a folder",
        where=str(error.filename),
        found=error.strerror or str(error),
        valid="folders that this user may list",
    ) from error


def _remote(uri: str) -> tuple[list[str], Store, tuple[bytes, ...]]:
    """Names of the images at an address or below it, the store that they are names in, and marks of their content."""
    from raycls.run.storage.object_storage import check, open_storage

    address, mark, options = uri.partition("?")
    files = open_storage(uri)
    check(files, uri)
    found = files.files()
    if found is None:
        store, name = Store.around(f"{address.rstrip('/')}{mark}{options}")
        if not store.exists(name):
            raise ConfigError("an input is not there", where=f"INPUT {address}", found="nothing there")
        return [name], store, ()
    images = [each for each in found if os.path.splitext(each[0])[1].lower() in SUFFIXES]
    names = [name for name, _, _ in images]
    marks = np.array([(size, changed) for _, size, changed in images], np.int64)
    return names, Store(uri), (marks.tobytes(),)


def _marks(reader: Reader) -> tuple[bytes, ...]:
    if isinstance(reader, _Chained):
        return tuple(part for each in reader.readers for part in _marks(each))
    if isinstance(reader, Remote):
        return (*reader.names.digest_parts(), *reader.marks)
    if isinstance(reader, Files):
        with ThreadPoolExecutor(_STAT_THREADS) as pool:  # a question is a round trip where the files are on a network
            parts = pool.map(lambda start: _stats(reader, start), range(0, len(reader.names), _AT_ONCE))
            return (*reader.names.digest_parts(), *parts)
    if isinstance(files := getattr(reader, "files", None), Files):  # of volumes
        return _marks(files)
    ask = getattr(reader, "sizes", None)
    sizes = None if ask is None else ask()
    return () if sizes is None else (np.asarray(sizes, np.int64).tobytes(),)


def _stats(reader: Files, start: int) -> bytes:
    found = np.full((len(reader.names[start : start + _AT_ONCE]), 2), -1, np.int64)
    for row in range(len(found)):
        try:
            status = os.stat(reader.locate(start + row))
        except OSError:
            continue
        found[row] = status.st_size, status.st_mtime_ns
    return found.tobytes()
