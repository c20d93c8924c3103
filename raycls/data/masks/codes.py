"""Masks as codes: 0 where a pixel is ignored or lies outside of the image, else one more than its class.

So whatever an operation adds beside an image counts as ignored, without a word about which value that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from raycls.data.making.bad import BadImageError
from raycls.data.source import Split
from raycls.errors import DataError

__all__ = ["MOST", "PART", "codes_of", "image_mask", "unmarked", "volume_mask"]

PART = "mask"
"""The name under which a source gives the masks (`Samples.parts`)."""
MOST = 254
"""Classes at most."""
_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


def image_mask(split: Split, index: int, values: Sequence[int], ignored: int | None) -> np.ndarray:
    """The codes of the mask of an image, `[H, W] uint8`. DataError names the file, what is wrong and the remedy;
    BadImageError where its bytes are no mask, which `data.on_bad_image: skip` leaves out as it does bad images.

    `values` are what a pixel of each class has, `ignored` what one without a class has.
    """
    place = _place(split, index)
    data = split.read(index, PART)
    if isinstance(data, bytes):
        data = _decoded(data, place, split.max_pixels)
    if data.ndim != 2 or data.dtype.kind not in "iub":
        found = f"{data.dtype} of shape {list(data.shape)}"
        raise DataError("a mask is not one integer per pixel", where=place, found=found, valid="[H, W]")
    return codes_of(data, values, ignored, place)


def volume_mask(split: Split, index: int, values: Sequence[int], ignored: int | None) -> np.ndarray:
    """The codes of the mask of a volume, `[D, H, W] uint8`, as `image_mask`."""
    place = _place(split, index)
    data = split.read(index, PART)
    if isinstance(data, bytes) or data.ndim != 3:
        found = "bytes" if isinstance(data, bytes) else f"{data.dtype} of shape {list(data.shape)}"
        raise DataError("a mask is not one number per voxel", where=place, found=found, valid="[D, H, W]")
    return codes_of(data, values, ignored, place)


def unmarked(shape: Sequence[int]) -> np.ndarray:
    """The codes of what has no mask: all of it counts, as the first class."""
    return np.ones(tuple(shape), np.uint8)


def codes_of(mask: np.ndarray, values: Sequence[int], ignored: int | None, place: str) -> np.ndarray:
    """The codes of a mask of numbers, `uint8` of its shape. DataError where it has a value of no class."""
    codes, known = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, bool)
    for label, value in enumerate(values):
        here = mask == value
        codes[here] = label + 1
        known |= here
    if ignored is not None:
        known |= mask == ignored
    if not known.all():
        strange = np.unique(mask[~known])
        raise DataError(
            "a mask has values of no class",
            where=place,
            found=", ".join(f"{value:g}" for value in strange[:8].tolist()) + " and others" * (len(strange) > 8),
            valid=", ".join(map(str, values)) + ("" if ignored is None else f"; {ignored} is ignored"),
            fix="name the value of each class in task.args.values, or the one without a class in "
            "task.args.ignore_index",
        )
    return codes


def _place(split: Split, index: int) -> str:
    locate = getattr(split.parts.get(PART), "locate", None)
    return split.locate(index) if locate is None else locate(index)


def _decoded(data: bytes, place: str, most: int) -> np.ndarray:
    try:
        with Image.open(BytesIO(data), formats=("PNG", "TIFF", "BMP", "GIF")) as image:
            mode, (width, height) = image.mode, image.size
            if width * height > most:
                raise BadImageError(
                    "a mask is larger than allowed",
                    where=place,
                    found=f"{width} x {height} pixels",
                    valid=f"at most data.max_pixels, {most:,}",
                    size=len(data),
                )
            if mode in _MODES:
                found = np.array(image)
                return found.astype(np.uint8) if found.dtype == bool else found
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImageError(
            "cannot read a mask",
            where=place,
            found=type(error).__name__,
            valid="a PNG, TIFF, BMP or GIF file",
            fix="restore the file",
            size=len(data),
        ) from error
    raise BadImageError(
        "a mask has colours and not one number per pixel",
        where=place,
        found=f"mode {mode}",
        valid="a file of grey values or of a palette, whose numbers are the classes",
        fix="convert it to one number per pixel",
        size=len(data),
    )
