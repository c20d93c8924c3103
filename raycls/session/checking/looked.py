"""What is noted of each image of a data set: whether it can be decoded, what it is, and how it looks when small."""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from raycls.data.images.decoding.bare import jpeg_segments
from raycls.data.making.sample import unexpected
from raycls.data.rows import fetched
from raycls.data.samples import Reader
from raycls.data.source import Split
from raycls.data.volumes.reading import Wanted, middle_slice, volume_of
from raycls.errors import DataError, OutageError, RayclsError
from raycls.progress import progress
from raycls.session.checking.each import Apart, Task, each
from raycls.session.computing.parted import Compute, Elsewhere, refuse_unseen
from raycls.workdir import set_workdir

__all__ = ["CHROMA", "LUMA", "Looked", "Parts", "Unreadable", "Work", "look", "look_on", "shown", "small"]

LUMA, CHROMA = 32, 8
"""Sides of the small picture that images are compared by: of its brightness, and of its two colour differences."""
_BYTES = LUMA * LUMA + 2 * CHROMA * CHROMA
_DIGEST = 16
_ORIENTATION = 0x0112
_PIXELS, _VOXELS = "pixels", "voxels"
"""The formats of a sample that its source gives as an array."""
_PART, _MOST_PARTS = 256, 4096
"""Images of one part on a Ray at least, and how many parts there are at most."""
_PHASE = "looking at the images"


_ARRAYS = ("digests", "sizes", "small", "lengths", "turns")


class Unreadable(NamedTuple):
    """Why an image cannot be used."""

    what: str
    found: str


@dataclass(frozen=True)
class Looked:
    """What is known of `N` images."""

    digests: np.ndarray
    """Of the bytes of each, `[N, 16] uint8`."""
    sizes: np.ndarray
    """Width and height in pixels, upright, or of the slices of a volume, `[N, 2] int32`; zeros where it cannot be
    decoded."""
    small: np.ndarray
    """`[N, 1152] uint8`, see `small`; zeros of a volume."""
    lengths: np.ndarray
    """Bytes of each file, or of its pixels, `[N] int64`."""
    formats: list[str]
    """As Pillow calls it in lower case: `jpeg`; `dicom` or `nifti`; empty where it cannot be decoded."""
    turns: np.ndarray
    """The EXIF orientation, `[N] uint8`; 1 where there is none."""
    bad: dict[int, Unreadable] = field(default_factory=dict[int, Unreadable])
    unread: set[int] = field(default_factory=set[int])
    """Those of the bad ones whose bytes could not be read here; another machine may see them."""

    @classmethod
    def empty(cls, count: int) -> Looked:
        return cls(
            np.zeros((count, _DIGEST), np.uint8),
            np.zeros((count, 2), np.int32),
            np.zeros((count, _BYTES), np.uint8),
            np.zeros(count, np.int64),
            [""] * count,
            np.ones(count, np.uint8),
        )

    def put(self, start: int, some: Looked) -> None:
        """Take over what is known of the images from `start` on."""
        rows = slice(start, start + len(some.formats))
        for name in _ARRAYS:
            getattr(self, name)[rows] = getattr(some, name)
        self.formats[rows] = some.formats
        self.bad.update({start + index: why for index, why in some.bad.items()})
        self.unread.update(start + index for index in some.unread)

    def to_bytes(self) -> bytes:
        """For another process; `from_bytes` gives it back."""
        texts = json.dumps([self.formats, [[row, *why] for row, why in self.bad.items()], sorted(self.unread)]).encode()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        stream = io.BytesIO()
        np.savez(stream, texts=np.frombuffer(texts, np.uint8), **arrays)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            formats, bad, unread = json.loads(found["texts"].tobytes())
            arrays = {name: found[name] for name in _ARRAYS}
        return cls(**arrays, formats=formats, bad={row: Unreadable(*why) for row, *why in bad}, unread=set(unread))


def look(work: Work) -> dict[str, Looked]:
    """Decode every image once, on all cores. An image that ends its process is one that cannot be used."""
    found = {name: Looked.empty(len(split)) for name, split in work.splits.items()}
    for task, some in each(work, work.splits, _PHASE):
        found[task.split].put(task.start, some)
    return found


def look_on(cluster: Elsewhere, work: Work, workdir: str) -> dict[str, Looked]:
    """The same, by the nodes of a cluster."""
    found = {name: Looked.empty(len(split)) for name, split in work.splits.items()}
    parts = Parts(work, workdir)
    done, total = 0, sum(map(len, work.splits.values()))
    progress(_PHASE, 0, total, "images")
    for number, data, host in cluster.parts(parts, range(len(parts))):
        task, some = parts.task(number), Looked.from_bytes(data)
        for row in sorted(some.unread):
            refuse_unseen(work.splits[task.split], task.start + row, host, some.bad[row].what)
        found[task.split].put(task.start, some)
        done += len(task)
        progress(_PHASE, done, total, "images")
    return found


@dataclass(frozen=True)
class Work:
    """What a process needs to look at any image."""

    splits: dict[str, Split]
    volumes: Wanted | None = None
    """How the samples are read where they are volumes."""

    def __call__(self, task: Task) -> Looked:
        found = Looked.empty(len(task))
        reader = _Last(self.splits[task.split].reader)
        split = replace(self.splits[task.split], reader=reader)
        with fetched(reader, np.arange(task.start, task.stop)):
            for place in range(len(task)):
                try:
                    if self.volumes is None:
                        image = split.image(task.start + place)
                        _note(found, place, reader.data, image)
                    else:
                        volume_of(split, task.start + place, self.volumes)
                        _note_volume(found, place, np.asarray(reader.data), getattr(reader, "kind", _VOXELS))
                except OutageError:  # no image is at fault
                    raise
                except RayclsError as error:
                    found.bad[place] = _why(error)
                    found.unread.update([place] if reader.failed else ())
                except Exception as error:  # noqa: BLE001 - of a source that is a plug-in
                    found.bad[place] = _why(unexpected(error))
        return found

    def failed(self, task: Task, error: DataError) -> Looked:
        found = Looked.empty(1)
        found.bad[0] = _why(error)
        return found


@dataclass(frozen=True)
class Parts:
    """All images in parts that nodes of a cluster look at, each in a process of its own, which an image may end."""

    work: Work
    workdir: str
    doing = "looking at the images"
    remedy = "rerun the command without scale.workers"

    @property
    def size(self) -> int:
        """Images of a part; the last one of a split may have fewer."""
        return max(_PART, -(-sum(map(len, self.work.splits.values())) // _MOST_PARTS))

    @property
    def starts(self) -> list[int]:
        """The first part of each split, and the number of all of them."""
        starts = [0]
        for split in self.work.splits.values():
            starts.append(starts[-1] - (-len(split) // self.size))
        return starts

    def __len__(self) -> int:
        return self.starts[-1]

    def task(self, number: int) -> Task:
        """The images of a part."""
        which = bisect_right(self.starts, number) - 1
        name = list(self.work.splits)[which]
        start = (number - self.starts[which]) * self.size
        return Task(name, start, min(start + self.size, len(self.work.splits[name])))

    def place(self, number: int) -> str:
        task = self.task(number)
        split = self.work.splits[task.split]
        return f"images {task.start + 1:,} to {task.stop:,} of {task.split}: from {split.key(task.start)} on"

    @contextmanager
    def computing(self) -> Iterator[Compute]:
        set_workdir(self.workdir)
        with Apart(self.work) as apart:

            def compute(number: int) -> bytes:
                task = self.task(number)
                found = Looked.empty(len(task))
                for some, looked in apart.each(task):
                    found.put(some.start - task.start, looked)
                return found.to_bytes()

            yield compute


class _Last:
    """A reader that keeps what it read last: bytes are not read twice to be decoded and to be compared."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.data: bytes | np.ndarray = b""
        self.failed = False

    def read(self, index: int) -> bytes | np.ndarray:
        self.failed = True
        self.data = self._reader.read(index)
        self.failed = False
        return self.data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def _why(error: RayclsError) -> Unreadable:
    return Unreadable(error.what, error.found or "")


def _note(found: Looked, place: int, data: bytes | np.ndarray, image: Image.Image) -> None:
    if isinstance(data, bytes):
        content, length = data, len(data)
        found.formats[place], found.turns[place] = _described(data)
    else:
        usual = data.dtype == np.uint8 and data.shape[2:] in ((), (3,))  # else an image does not show all of it
        content, length = (np.asarray(image) if usual else data).tobytes() + repr(image.size).encode(), data.nbytes
        found.formats[place] = _PIXELS
    found.digests[place] = _digest(content)
    found.sizes[place] = image.size
    found.lengths[place] = length
    found.small[place] = small(image)


def _note_volume(found: Looked, place: int, voxels: np.ndarray, kind: str) -> None:
    """Volumes `[D, H, W]` of the same values are copies, in whichever files; nearly equal ones are not looked for."""
    found.digests[place] = _digest(voxels.astype(np.float32).tobytes() + repr(voxels.shape).encode())
    found.sizes[place] = voxels.shape[2], voxels.shape[1]
    found.lengths[place] = voxels.nbytes
    found.formats[place] = kind


def _digest(content: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(content, digest_size=_DIGEST).digest(), np.uint8)


def shown(split: Split, row: int, volumes: Wanted | None) -> np.ndarray:
    """The picture of a sample, `[H, W, 3] uint8`: of a volume its middle slice. DataError where it cannot be decoded.

    `volumes` is as for `look`.
    """
    return np.asarray(split.image(row)) if volumes is None else middle_slice(volume_of(split, row, volumes))


def small(image: Image.Image) -> np.ndarray:
    """How an image looks when small, `[1152] uint8`: its brightness 32 x 32, then both colour differences 8 x 8.

    Pixels are averaged over areas. A smaller image is enlarged smoothly, as most programs do: so it looks like a copy
    that was enlarged by one of them.
    """
    filtered = Image.Resampling.BOX if min(image.size) >= LUMA else Image.Resampling.BICUBIC
    little = image.resize((LUMA, LUMA), filtered).convert("YCbCr")
    luma, *colours = little.split()
    parts = [luma, *(each.resize((CHROMA, CHROMA), Image.Resampling.BOX) for each in colours)]
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def _described(data: bytes) -> tuple[str, int]:
    """The format of a file that was decoded, and its EXIF orientation."""
    if data.startswith(b"\xff\xd8") and not any(data[start + 1] == 0xE1 for start, _ in jpeg_segments(data)):
        return "jpeg", 1
    try:
        with Image.open(io.BytesIO(data)) as header:
            return (header.format or "").lower(), _orientation(header)
    except Exception:  # noqa: BLE001 - metadata that Pillow stumbles over says nothing about the pixels
        return "other", 1


def _orientation(header: Image.Image) -> int:
    try:
        turn = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a damaged EXIF block counts as none, as for the decoder
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
