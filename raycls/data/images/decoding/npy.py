"""Images of any number of channels in `.npy` files: an array `[H, W, C]` or `[H, W]` of numpy, and nothing else in it.

The header is that of `numpy.lib.format`, the values are never unpickled. It is not read by numpy, which asks Python's
parser: that of Python 3.11 may fail where threads ask at once, and a whole image would count as a bad one.
"""

from __future__ import annotations

import math
import re

import numpy as np

from raycls.data.images.planes import Planes, held

__all__ = ["MAGIC", "header_of", "values_of"]

MAGIC = b"\x93NUMPY"
Header = tuple[tuple[int, ...], bool, np.dtype, int]
"""Shape, whether the first axis lies closest, type, and where the values begin."""
_MOST = 10_000
"""Bytes of a header, as in numpy."""
_ITEM = (
    r"(?:'descr':'(?P<type{0}>[<>|=]?[a-zA-Z]\d*)'|'fortran_order':(?P<first{0}>True|False)"
    r"|'shape':\((?P<shape{0}>(?:(?:0|[1-9]\d*)(?:,|(?=\))))*)\))"
)
_HEADER = re.compile(r"\{" + ",".join(_ITEM.format(number) for number in range(3)) + r",?\}")
_APART = re.compile(r"[\w<>|=] +[\w<>|=]")
"""Spaces that part what they must not."""


def header_of(data: bytes) -> Header:
    """ValueError where it is none of an array that is stored plainly."""
    version, width = tuple(data[6:8]), 2 if data[6:7] == b"\1" else 4
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of the form {'.'.join(map(str, version))}")
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    text = data[8 + width : min(start, _MOST)].decode("latin-1").rstrip("\n")
    match = _HEADER.fullmatch(text.replace(" ", ""))
    groups = {} if match is None else match.groupdict()
    found = {name[:-1]: value for name, value in groups.items() if value is not None}
    if start > min(len(data), _MOST) or len(found) != 3 or _APART.search(text):
        raise ValueError("a header that is none of an array of numbers")
    shape = tuple(int(side) for side in found["shape"].split(",") if side)
    try:
        return shape, found["first"] == "True", np.dtype(found["type"]), start
    except TypeError as error:
        raise ValueError(f"an array of the type {found['type']}") from error


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
