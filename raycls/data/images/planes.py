"""What a decoded image is held as: how many channels it has, of how many bits.

An image of one channel is an array `[H, W]`, or a Pillow image of mode L; one of three is `[H, W, 3]`, or of mode RGB.
Of 16 bits, or of other channels `[H, W, C]`, it is an array always: Pillow has no such images, or takes one of four
channels for one with alpha.
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
        depth = "an 8-bit" if self.bits == 8 else f"a {self.bits}-bit"
        colours = {1: " grey image", 3: " RGB image"}.get(self.channels, f" image of {self.channels} channels")
        return depth + colours

    @property
    def pillow(self) -> bool:
        """Whether it is a Pillow image to operations."""
        return self.bits == 8 and self.channels in (1, 3)

    @property
    def mode(self) -> str:
        """That of a Pillow image; empty where there is none."""
        grey = "L" if self.bits == 8 else "I;16"
        return {1: grey, 3: "RGB"}.get(self.channels, "")

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
    more bits or of other channels than asked.
    """
    if 0 in array.shape or array.dtype not in (np.uint8, planes.dtype):
        return None
    if planes.channels == 1 and array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if planes.channels not in (1, 3):
        return _deepened(array, planes) if array.ndim == 3 and array.shape[2] == planes.channels else None
    colours = array.ndim == 3 and array.shape[2] == 3
    if array.ndim != 2 and not colours:
        return None
    if planes.channels == 3:
        return np.ascontiguousarray(array if colours else np.broadcast_to(array[..., None], (*array.shape, 3)))
    if colours:
        if array.dtype != np.uint8:
            return None
        array = np.asarray(fromarray(np.ascontiguousarray(array)).convert("L"))
    return _deepened(array, planes)


def _deepened(array: np.ndarray, planes: Planes) -> np.ndarray:
    if array.dtype != planes.dtype:
        array = array.astype(planes.dtype) * (planes.white // 255)
    return np.ascontiguousarray(array)


def for_people(pixels: Image | np.ndarray) -> np.ndarray:
    """An image as a screen shows it, `[H, W, 3] uint8`: 16 bits are divided by 257, grey repeats its value; of four
    channels or more the first three, of two the first one."""
    array = np.asarray(pixels)
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    array = array[..., : 3 if array.shape[2] >= 3 else 1]
    return array if array.shape[2] == 3 else np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
