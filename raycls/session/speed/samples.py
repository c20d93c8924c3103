"""What the samples of a training cost in one process: reading them, decoding them, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raycls.data.slices import TRAIN, Maker, Position, Slice
from raycls.data.source import Reader, Split

__all__ = ["Made", "Samples", "position"]


@dataclass(frozen=True)
class Made:
    """Seconds of this process for `images` samples."""

    images: int
    fetch: float
    """For the bytes, or the pixels, of a sample and of its other parts."""
    decode: float
    augment: float
    """For what the task makes of a decoded image, and for putting the samples of a slice together."""

    @property
    def seconds(self) -> float:
        """Of all three."""
        return self.fetch + self.decode + self.augment


def position(order: Any, step: int) -> Position:
    """Where the slice of `step` belongs, for a single rank."""
    return Position(TRAIN, order.epoch(step), step, 0, 0)


class Samples:
    """Makes slices as every executor does, by `maker`, whose `train` is read through readers that look at the clock.

    Each slice is made twice: from its files, and from pixels that its reader has decoded. What the second one takes
    less is decoding, however the task does it.
    """

    def __init__(self, maker: Maker, split: Split) -> None:
        self._fetched = _Clocked(split.reader, split.reader.read)
        self._decoded = _Clocked(split.reader, lambda index: np.asarray(split.pixels(index)))
        parts = {name: _Clocked(reader, reader.read) for name, reader in split.parts.items()}
        self._parts = tuple(parts.values())
        self._from_files = replace(maker, train=replace(split, reader=self._fetched, parts=parts))
        self._from_pixels = replace(maker, train=replace(split, reader=self._decoded, parts=parts))
        self._order = maker.order

    @property
    def encoded(self) -> bool:
        """Whether the source gives files to be decoded; known once a sample was made."""
        return self._fetched.encoded

    def make(self, step: int) -> tuple[Slice, Made]:
        """The slice of `step` and what it took. Raises its error where a sample cannot be made."""
        fetched, total, made = self._timed(self._from_files, step, self._fetched)
        rest = total - fetched
        if not self.encoded:
            return made, Made(len(made.ids), fetched, 0.0, rest)
        before, total, _ = self._timed(self._from_pixels, step, self._decoded)
        augment = min(rest, total - before)
        return made, Made(len(made.ids), fetched, rest - augment, augment)

    def _timed(self, maker: Maker, step: int, reader: _Clocked) -> tuple[float, float, Slice]:
        clocks = (reader, *self._parts)
        before = sum(each.seconds for each in clocks)
        began = time.perf_counter()
        made = maker(position(self._order, step))
        total = time.perf_counter() - began
        if made.error is not None:
            raise made.error
        return sum(each.seconds for each in clocks) - before, total, made


class _Clocked:
    """A reader that adds up the seconds of its calls of `read`; all else is that of `inner`."""

    def __init__(self, inner: Reader, read: Callable[[int], bytes | np.ndarray]) -> None:
        self._inner, self._read = inner, read
        self.seconds, self.encoded = 0.0, False

    def read(self, index: int) -> bytes | np.ndarray:
        began = time.perf_counter()
        data = self._read(index)
        self.seconds += time.perf_counter() - began
        self.encoded = isinstance(data, bytes)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
