"""One shard of packed data: the same bytes in whichever process it is made. No torch is needed for it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from PIL.Image import Image, Resampling, fromarray

from raycls.data.rows import fetched
from raycls.data.source import Split
from raycls.data.sources.packed.layout import Row, Rows, shard_name, to_buffer
from raycls.errors import CheckpointError
from raycls.session.computing.parted import Compute
from raycls.workdir import set_workdir

__all__ = ["Work", "put", "shorter"]

_LONGEST_JPEG = 65_500
"""Pixels of the longest side that libjpeg writes."""
_FETCHED = 64
"""Images that are asked for at a time, where the reader can."""


@dataclass(frozen=True)
class Work:
    """What is to be packed. Plain values: it travels to other processes."""

    splits: tuple[Split, ...]
    rows: Rows
    size: int | None
    """The shorter side of the stored images; None: they are not resized."""
    quality: int
    """Of JPEG, where an image is resized; 0 for raw pixels."""
    per_shard: int
    """Images of a shard; the last one of a split may have fewer."""
    workdir: str
    """Where plug-ins come from."""
    folder: str = ""
    """Where a process writes its shards; empty where their bytes travel to the driver."""

    @property
    def doing(self) -> str:
        return "packing"

    @property
    def remedy(self) -> str:
        return "find the image with raycls init CONFIG --check and leave it out, then rerun the command"

    @property
    def starts(self) -> tuple[int, ...]:
        """The first shard of each split, and the number of all of them: no shard has images of two splits."""
        return tuple(accumulate((-(-len(split) // self.per_shard) for split in self.splits), initial=0))

    @property
    def shards(self) -> int:
        return self.starts[-1]

    def name(self, number: int) -> str:
        return shard_name(number, self.rows.form)

    def part(self, number: int) -> tuple[Split, range]:
        """The split of a shard, and the positions of its images in it."""
        which = int(np.searchsorted(self.starts, number, side="right")) - 1
        split, first = self.splits[which], (number - self.starts[which]) * self.per_shard
        return split, range(first, min(first + self.per_shard, len(split)))

    def place(self, number: int) -> str:
        split, rows = self.part(number)
        keys = f"{split.key(rows[0])} to {split.key(rows[-1])}"
        return f"{self.name(number)}, images {rows[0] + 1:,} to {rows[-1] + 1:,} of {split.name}: {keys}"

    @contextmanager
    def computing(self) -> Iterator[Compute]:
        set_workdir(self.workdir)
        yield self.made

    def made(self, number: int, told: Callable[[int], None] = lambda rows: None) -> bytes:
        """The bytes of a shard; none where it was written to `folder`. `told` hears how many images are done.

        DataError names an image that cannot be decoded.
        """
        buffer = to_buffer(self.rows, self._samples(number, told))
        if not self.folder:
            return buffer.to_pybytes()
        put(os.path.join(self.folder, self.name(number)), buffer)
        return b""

    def _samples(self, number: int, told: Callable[[int], None]) -> Iterator[Row]:
        split, rows = self.part(number)
        for start in range(0, len(rows), _FETCHED):
            some = rows[start : start + _FETCHED]
            with fetched(split.reader, np.array(some)):
                for done, index in enumerate(some, start=start + 1):
                    about = tuple(split.about[name][index] for name in self.rows.about)
                    yield Row(split.key(index), self._label(split, index), self.value(split, index), about)
                    told(done)

    def _label(self, split: Split, index: int) -> int | list[int]:
        label = int(split.labels[index])
        return label if split.sets is None else np.flatnonzero(split.sets[label]).tolist()

    def value(self, split: Split, index: int) -> bytes | np.ndarray:
        """What is stored of a sample: pixels `[H, W, 3] uint8`, or an encoded image file."""
        image = split.image(index)
        wanted = image.size if self.size is None else shorter(image.size, self.size)
        small = image if wanted == image.size else image.resize(wanted, Resampling.BILINEAR)
        if self.rows.raw:
            return np.asarray(small)
        if small is not image:
            return _encoded(small, self.quality)
        data = split.reader.read(index)
        return data if isinstance(data, bytes) else _encoded(fromarray(np.asarray(image)), 0)


def shorter(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    """Width and height where the shorter side is at most `wanted`, as the operation `resize` has them."""
    width, height = size
    if min(size) <= wanted:
        return size
    longer = int(wanted * max(size) / min(size))
    return (wanted, longer) if width <= height else (longer, wanted)


def _encoded(image: Image, quality: int) -> bytes:
    """A JPEG file; of quality 0, or too long for one, a PNG file, which loses nothing."""
    image.info = {}  # what a file said beside its pixels is not theirs any more
    stream = io.BytesIO()
    jpeg = bool(quality) and max(image.size) <= _LONGEST_JPEG
    options: dict[str, Any] = {"format": "JPEG", "quality": quality} if jpeg else {"format": "PNG"}
    image.save(stream, **options)
    return stream.getvalue()


def put(path: str, data: Any) -> None:
    """Write a file whole or not at all, readable for whom the umask lets. CheckpointError where that fails."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise CheckpointError(
            "the packed data cannot be written",
            where=path,
            found=error.strerror or str(error),
            fix="make room or get permission there and rerun the command to resume",
        ) from error
