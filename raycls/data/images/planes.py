"""What a decoded image is held as: how many channels it has, of how many bits.

An image of one channel is an array `[H, W]`, or a Pillow image of mode L; one of three is `[H, W, 3]`, or of mode RGB.
Of 16 bits it is an array always: Pillow has no operations that keep all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL.Image import Image, fromarray

from raycls.config.sections.data import DataConfig

__all__ = ["RGB", "Planes", "for_people", "held", "planes_of"]


@dataclass(frozen=True)
class Planes:
    """`data.channels` and `data.bit_depth`."""

    channels: int = 3
    bits: int = 8

    @property
    def white(self) -> int:
        """The highest value: 255 or 65535."""
        return 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"u{self.bits // 8}")

    @property
    def bytes(self) -> int:
        """Of a pixel."""
        return self.channels * self.bits // 8

    def black(self, height: int, width: int) -> np.ndarray:
        return np.zeros((height, width) if self.channels == 1 else (height, width, self.channels), self.dtype)

    @property
    def words(self) -> str:
        """`an 8-bit RGB image`."""
        return (
            f"{'an 8-bit' if self.bits == 8 else f'a {self.bits}-bit'} {'RGB' if self.channels == 3 else 'grey'} image"
        )

    @property
    def mode(self) -> str:
        """That of a Pillow image."""
        return "RGB" if self.channels == 3 else "L" if self.bits == 8 else "I;16"

    @property
    def shape(self) -> str:
        """`[H, W, 3]`."""
        return "[H, W]" if self.channels == 1 else f"[H, W, {self.channels}]"


RGB = Planes()
"""Unless a config says otherwise."""


def planes_of(config: DataConfig) -> Planes:
    """Those that a config asks for."""
    return Planes(config.channels, config.bit_depth)


def held(array: np.ndarray, planes: Planes) -> np.ndarray | None:
    """An image of a source, `uint8` `[H, W]` or `[H, W, 3]` (or as `planes` has it already), as `planes` has it.

    Colour becomes grey as by Pillow's `convert("L")`, 8 bits become 16 by 257. None where that is no image, or one of
    more bits than asked.
    """
    if 0 in array.shape or array.dtype not in (np.uint8, planes.dtype):
        return None
    if planes.channels == 1 and array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    colours = array.ndim == 3 and array.shape[2] == 3
    if array.ndim != 2 and not colours:
        return None
    if planes.channels == 3:
        return np.ascontiguousarray(array if colours else np.broadcast_to(array[..., None], (*array.shape, 3)))
    if colours:
        if array.dtype != np.uint8:
            return None
        array = np.asarray(fromarray(np.ascontiguousarray(array)).convert("L"))
    if array.dtype != planes.dtype:
        array = array.astype(planes.dtype) * (planes.white // 255)
    return np.ascontiguousarray(array)


def for_people(pixels: Image | np.ndarray) -> np.ndarray:
    """An image as a screen shows it, `[H, W, 3] uint8`: 16 bits are divided by 257, grey repeats its value."""
    array = np.asarray(pixels)
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    return array if array.shape[2] == 3 else np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
