"""Operations that change the size of a volume `[C, D, H, W]`: resized, cut, or padded with 0, as black as can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from raycls.data.samples import UnfitError
from raycls.data.volumes.geometry import resized

__all__ = ["center_crop", "pad", "random_crop", "resize"]

Function = Callable[[np.ndarray, torch.Generator, int], np.ndarray]
"""Called with the volume, a generator, and the number of voxels that it may make at most."""


def resize(image_size: int, *, size: int | Sequence[int] | None = None) -> Function:
    """Exactly `size`, by linear interpolation; the shape is not kept."""
    wanted = _sides(image_size, size)

    def resize_to(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        _refuse_large(wanted, most)
        return resized(volume, wanted)

    return resize_to


def center_crop(image_size: int, *, size: int | Sequence[int] | None = None) -> Function:
    """The middle; a smaller volume is padded."""
    wanted = _sides(image_size, size)

    def crop(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        volume = _padded(volume, wanted, most)
        return _part(volume, [(have - want) // 2 for have, want in zip(volume.shape[1:], wanted, strict=True)], wanted)

    return crop


def random_crop(image_size: int, *, size: int | Sequence[int] | None = None) -> Function:
    """Any part of this size; a smaller volume is padded."""
    wanted = _sides(image_size, size)

    def crop(volume: np.ndarray, generator: torch.Generator, most: int) -> np.ndarray:
        volume = _padded(volume, wanted, most)
        room = [have - want for have, want in zip(volume.shape[1:], wanted, strict=True)]
        return _part(volume, [int(torch.randint(each + 1, (), generator=generator)) for each in room], wanted)

    return crop


def pad(image_size: int, *, size: int | Sequence[int] | None = None) -> Function:
    """At least `size`, with the volume in the middle."""
    wanted = _sides(image_size, size)
    return lambda volume, generator, most: _padded(volume, wanted, most)


def _sides(image_size: int, size: Any) -> tuple[int, int, int]:
    size = image_size if size is None else size
    sides = [size] * 3 if isinstance(size, int) else list(size)
    if len(sides) != 3 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError("size is one number, or three: [slices, rows, columns], each greater than 0")
    return sides[0], sides[1], sides[2]


def _part(volume: np.ndarray, starts: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    return volume[(slice(None), *(slice(start, start + size) for start, size in zip(starts, sizes, strict=True)))]


def _padded(volume: np.ndarray, sizes: Sequence[int], most: int) -> np.ndarray:
    lacking = [max(0, want - have) for want, have in zip(sizes, volume.shape[1:], strict=True)]
    if not any(lacking):
        return volume
    _refuse_large([have + more for have, more in zip(volume.shape[1:], lacking, strict=True)], most)
    return np.pad(volume, [(0, 0), *((more // 2, more - more // 2) for more in lacking)])


def _refuse_large(sizes: Sequence[int], most: int) -> None:
    if int(np.prod(sizes, dtype=np.int64)) > most:
        raise UnfitError(
            "would make a volume larger than allowed and was not run",
            found=f"{list(sizes)} voxels of ",
            valid=f"at most 8 times data.max_pixels, {most / 1e6:g} million voxels",
            fix="raise data.max_pixels where there is the memory",
        )
