"""JPEG files whose pixels libjpeg-turbo gives without Pillow around it, at a fifth of the time where they are small.

Only files of which that is known are taken: baseline or progressive Huffman coding of 8 bits, in grey or in Y, Cb and
Cr with the usual subsampling, decoded without a single warning of the library, and not turned by their metadata. Pillow
calls the same library in the same way, so the pixels are equal to the bit. Whatever is not known is left to Pillow,
which accepts or refuses it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import features
from PIL.Image import Image
from PIL.JpegImagePlugin import JpegImageFile

from raycls.data.images.decoding.bare import jpeg_segments

__all__ = ["Encoded", "pixels", "size"]

_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
_TABLES = frozenset((0xC4, 0xDB, 0xDD, 0xFE))
"""Huffman tables, quantisation tables, the restart interval, comments (ITU T.81, table B.1)."""
_SAMPLING = (b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")
"""4:4:4, 4:2:2 and 4:2:0: versions of the library interpolate the colours of others differently."""
_SAME_LIBRARY = features.check("libjpeg_turbo")
"""Another libjpeg under Pillow has another inverse transform."""
_ORIENTATION, _UPRIGHT = 0x0112, 1
_SCAN = b"\xff\xda"
_REMEMBERED = 1024
"""Bytes before the first scan of a file of which that is worth while."""


@dataclass(frozen=True)
class Encoded:
    """A JPEG file that is decoded here, and not yet: whoever needs it made smaller says how much."""

    data: bytes
    height: int
    width: int
    whole: Callable[[], Image | np.ndarray]
    """All of its pixels, or what is wrong with it."""

    def scaled(self, scale: int) -> Image | np.ndarray:
        """Pixels at 1/`scale` of the size, rounded up; `scale` is 2, 4 or 8: what the inverse transform of the library
        gives at that size. May be the whole image all the same, where the file turns out to be damaged."""
        height, width = -(-self.height // scale), -(-self.width // scale)
        try:
            return simplejpeg.decode_jpeg(self.data, "RGB", min_height=height, min_width=width, min_factor=scale)
        except ValueError:
            return self.whole()


def pixels(data: bytes, max_pixels: int) -> np.ndarray | None:
    """The image in `data`, `[H, W, 3] uint8`; None where it is not of a kind that is decoded here. Never raises."""
    if size(data, max_pixels) is None:
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # damaged, or a warning of the library: Pillow decides what that means
        return None


def size(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Height and width of a file that is decoded here: its segments before the first scan are all of known kinds, and
    say nothing that changes pixels."""
    scan = data.find(_SCAN, 0, _REMEMBERED)
    known, end = _remembered(data[: scan + 2]) if scan > 0 else (None, -1)
    if scan < 0 or end != scan:  # there are too many bytes before the scan, or these two are within a segment
        known, _ = _looked_at(data)
    if known is None or not _SAME_LIBRARY or not 0 < known.height * known.width <= max_pixels:
        return None
    return None if known.described and _is_turned(data) else (known.height, known.width)


class _Known(NamedTuple):
    height: int
    width: int
    described: bool
    """Whether there is a segment that may say how the image is turned."""


def _looked_at(data: bytes) -> tuple[_Known | None, int]:
    """What the segments before the first scan say, None where the file is not decoded here; and where they end."""
    frame, jfif, end, described = b"", False, 2, False
    for start, end in jpeg_segments(data):
        marker = data[start + 1]
        if marker in (_BASELINE, _PROGRESSIVE) and not frame:
            frame = data[start + 4 : end]
        elif marker == 0xE0:
            jfif = jfif or (data[start + 4 : start + 9] == b"JFIF\0" and end - start >= 18)
        elif marker == 0xE1:
            described = True
        elif marker == 0xEE or not (marker in _TABLES or 0xE0 <= marker <= 0xEF):
            return None, -1  # Adobe's segment may change what the colours are
    if data[end : end + 2] != _SCAN or not _is_usual(frame, jfif=jfif):
        return None, end
    return _Known(int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), described), end


_remembered = lru_cache(maxsize=1024)(_looked_at)
"""Files of one program begin alike: what was found in such a beginning, which ends with the first scan."""


def _is_usual(frame: bytes, *, jfif: bool) -> bool:
    """Whether a start of frame (B.2.2) is of 8 bits and of grey, or of Y, Cb and Cr in a usual form."""
    if len(frame) == 9 and frame[5] == 1:
        return frame[0] == 8 and frame[7] == 0x11
    if len(frame) != 15 or frame[5] != 3:
        return False
    return frame[0] == 8 and frame[7::3] in _SAMPLING and (jfif or frame[6::3] == b"\1\2\3")


def _is_turned(data: bytes) -> bool:
    """Whether Pillow finds an orientation in the metadata, or may stumble over that."""
    try:
        return JpegImageFile(io.BytesIO(data)).getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
    except Exception:  # noqa: BLE001 - damaged metadata ends in any kind
        return True
