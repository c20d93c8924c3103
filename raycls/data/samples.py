"""What a data source hands over: which samples there are, and how the bytes of one are read.

A source plug-in is a callable `(path, **args) -> Samples`; it looks at names and labels only. Pixels are
read later, one sample at a time, in whichever process needs them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Protocol, overload

import numpy as np

from raycls.data.reading.whole import bytes_of
from raycls.errors import DataError

__all__ = ["Files", "Keys", "Reader", "Samples", "UnfitError", "digest_of", "text_of"]

_THREADS, _AT_ONCE = 8, 4096
"""How many threads ask for the sizes of files, and of how many files one of them does at a time. So many keys are
taken at once, too: for each an object is made on the way."""


class UnfitError(DataError):
    """An operation of raycls's own cannot be done on an image, which is whole; another image it might suit.

    `entry` is where the config has the operation, such as `augment.train[0]`.
    """

    def __init__(self, what: str, *, entry: str = "", **lines: str | None) -> None:
        super().__init__(what, **lines)
        self.entry = entry


class Reader(Protocol):
    """Reads samples by their position in `Samples`. It is pickled to other processes, so it holds no pixels.

    Three methods are optional. `take(rows)` returns a reader of these samples alone, and makes the splits of
    a large data set smaller on the wire. `locate(index)` returns the place that an error message names.
    `sizes()` returns the bytes of each sample, `[N] int64`, without reading any; -1 where they are not known. What
    has it is cheap to read: of small data the run writes down a digest of each sample.
    A reader with an attribute `positional` that is true has keys that are positions: without one sample the next ones
    have other keys.
    """

    def read(self, index: int) -> bytes | np.ndarray:
        """One sample: an encoded image file, or pixels `[H, W, 3]` or `[H, W]` uint8."""
        ...


@dataclass(frozen=True)
class Samples:
    """All samples of a source, before raycls splits them."""

    classes: Sequence[str]
    """Class names. raycls sorts them (as integers where all are), unless `ordered`; the labels follow."""
    labels: Sequence[int] | np.ndarray | None
    """The class of each sample as an index into `classes`, `[N]`; or `[N, C]` booleans, where a sample has any number
    of classes. None where a sample has no such label: then `classes` means what the task says, keeps its order and may
    be empty, and splits by fraction are not stratified."""
    keys: Sequence[str]
    """A name for each sample that stays the same when the data moves to another machine, `[N]`."""
    reader: Reader
    """Where the pixels come from."""
    splits: Mapping[str, Sequence[int] | np.ndarray] | None = None
    """The data's own splits among `train`, `val` and `test`, as positions; None where it has none."""
    ordered: bool = False
    """Whether the data itself declares the order of `classes`; they are not sorted then."""
    notes: Sequence[str] = ()
    """What a user should know about how the data was read, a line each; told before the training."""
    about: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    """What else is known of each sample, such as its camera, `[N]` by the name of a column: those that an argument
    `about` of the source asks for."""
    parts: Mapping[str, Reader] = field(default_factory=dict[str, "Reader"])
    """What else belongs to each sample, such as its mask, by a name of yours. A task reads it with
    `Split.read(index, name)`."""


class Keys(Sequence[str]):
    """Many texts in one block of bytes: a million paths pickle in a moment and take no object each.

    Texts are kept as UTF-8; file names that are not valid UTF-8 come back as Python read them.
    """

    __slots__ = ("_blob", "_offsets")

    def __init__(self, texts: Iterable[str]) -> None:
        each = texts if isinstance(texts, list) else list(texts)
        together = "".join(each)
        self._blob = together.encode("utf-8", "surrogateescape")
        lengths = map(len, each if len(self._blob) == len(together) else map(_encoded, each))
        self._offsets = np.fromiter(accumulate(lengths, initial=0), np.dtype("<i8"), len(each) + 1)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Keys: ...
    def __getitem__(self, index: int | slice) -> str | Keys:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        return self._blob[self._offsets[index] : self._offsets[index + 1]].decode("utf-8", "surrogateescape")

    @classmethod
    def of(cls, blob: bytes, offsets: np.ndarray) -> Keys:
        """The texts between `offsets` `[N + 1] int64` of a block of UTF-8."""
        made = cls(())
        made._blob, made._offsets = blob, offsets.astype("<i8")
        return made

    def take(self, rows: np.ndarray) -> Keys:
        """The texts at `rows`, `[n] int64`, in that order."""
        blocks: list[bytes] = []
        for first in range(0, len(rows), _AT_ONCE):
            some = rows[first : first + _AT_ONCE]
            bounds = zip(self._offsets[some].tolist(), self._offsets[some + 1].tolist(), strict=True)
            blocks.append(b"".join([self._blob[start:stop] for start, stop in bounds]))
        taken = Keys(())
        lengths = self._offsets[rows + 1] - self._offsets[rows]
        taken._blob, taken._offsets = b"".join(blocks), np.concatenate([taken._offsets, np.cumsum(lengths)])
        return taken

    def digest_parts(self) -> tuple[bytes, bytes]:
        """Two blocks of bytes that name the texts and their boundaries, for a fingerprint."""
        return self._blob, self._offsets.tobytes()

    def __iter__(self):
        for start, stop in pairwise(self._offsets.tolist()):
            yield self._blob[start:stop].decode("utf-8", "surrogateescape")

    def __getstate__(self) -> tuple[bytes, np.ndarray]:
        return self._blob, self._offsets

    def __setstate__(self, state: tuple[bytes, np.ndarray]) -> None:
        self._blob, self._offsets = state


def digest_of(parts: Iterable[bytes]) -> str:
    """sha256 over blocks of bytes and their lengths, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def text_of(name: str) -> str:
    """A name as valid UTF-8: bytes of a file name that are none stand escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Files:
    """Image files under one folder."""

    root: str
    """Absolute path of the folder."""
    names: Keys
    """Path of each file relative to `root`; an absolute one stands for itself."""

    def read(self, index: int) -> bytes:
        """The bytes of one file; DataError where it cannot be read."""
        path = self.locate(index)
        try:
            return bytes_of(path)
        except OSError as error:
            raise DataError(
                "cannot read an image file",
                where=path,
                found=error.strerror or str(error),
                fix="restore the file",
            ) from error

    def locate(self, index: int) -> str:
        """The path of one file."""
        return os.path.join(self.root, self.names[index])

    def sizes(self) -> np.ndarray:
        """Bytes of each file, `[N] int64`; -1 where there is none."""
        with ThreadPoolExecutor(_THREADS) as pool:  # a question is a round trip where the files are on a network
            parts = pool.map(self._sizes, range(0, len(self.names), _AT_ONCE))
            return np.concatenate([np.zeros(0, np.int64), *parts])

    def _sizes(self, start: int) -> np.ndarray:
        names = self.names[start : start + _AT_ONCE]
        found = np.full(len(names), -1, np.int64)
        for index, name in enumerate(names):
            try:
                found[index] = os.stat(os.path.join(self.root, name)).st_size
            except OSError:
                continue
        return found

    def take(self, rows: np.ndarray) -> Files:
        """A reader of the files at `rows` alone."""
        return Files(self.root, self.names.take(rows))
