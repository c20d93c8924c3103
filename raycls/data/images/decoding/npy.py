"""Images of any number of channels in `.npy` files: an array `[H, W, C]` or `[H, W]` of numpy, and nothing else in it.

The header is numpy's own (`numpy.lib.format`), read by numpy; the values are never unpickled.
"""

from __future__ import annotations

import io
import math

import numpy as np

from raycls.data.images.planes import Planes, held

__all__ = ["MAGIC", "header_of", "values_of"]

MAGIC = b"\x93NUMPY"
Header = tuple[tuple[int, ...], bool, np.dtype, int]
"""Shape, whether the first axis lies closest, type, and where the values begin."""


def header_of(data: bytes) -> Header:
    """ValueError where it is none of an array that is stored plainly."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of the form {version[0]}.{version[1]}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, first, dtype = read(stream)
    return shape, first, dtype, stream.tell()


def values_of(data: bytes, header: Header, planes: Planes) -> np.ndarray:
    """The image, as `planes` has it. ValueError says why there is none: other channels or bits, or a cut file."""
    shape, first, dtype, start = header
    found = f"{dtype} of shape {list(shape)}"
    if dtype.newbyteorder("=") not in (np.uint8, np.uint16) or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"{found}, and not an image of {planes.dtype} {planes.shape}")
    size, there = math.prod(shape) * dtype.itemsize, len(data) - start
    if size != there:
        raise ValueError(f"{found} has {size:,} bytes, and there are {there:,}")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if first else "C")
    made = held(array.astype(dtype.newbyteorder("="), copy=False), planes)
    if made is None:
        last = "; channels come last, numpy.moveaxis(array, 0, 2)" if shape[0] == planes.channels else ""
        raise ValueError(f"{found}, and not {planes.dtype} {planes.shape}{last}")
    return made
