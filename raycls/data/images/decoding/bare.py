"""Image files without their metadata, for the rare ones whose metadata keeps Pillow from the pixels.

A colour profile of megabytes, a broken EXIF block or a text chunk that unpacks to gigabytes says nothing about the
pixels. What decides about these is copied as it is; of the rest only the orientation is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from raycls.data.images.decoding import tiff

__all__ = ["bare", "jpeg_segments"]

_TEXT_LIMIT = 1 << 24
"""Bytes that the text which may hold an orientation is unpacked to, at most; what follows is left out."""


def bare(data: bytes, kind: str) -> tuple[bytes, dict[str, Any]]:
    """The file `data` of the format `kind` without metadata, and what its metadata says about the orientation.

    The second is in the form of `Image.info` of Pillow: `exif`, `xmp` or `Raw profile type exif`. Never raises: what
    is no such file comes back as it is.
    """
    strip = {"png": _png, "jpeg": _jpeg, "webp": _webp}.get(kind)
    if strip is not None:
        return strip(data)
    return (tiff.bare(data) if kind == "tiff" else data), {}


_PNG_PIXELS = frozenset((b"tRNS",))
_PNG_METADATA = frozenset(
    b"acTL bKGD cHRM cICP cLLI eXIf fcTL fdAT gAMA hIST iCCP iTXt mDCV oFFs pCAL pHYs sBIT sCAL sPLT sRGB sTER tEXt "
    b"tIME zTXt".split()
)
"""Chunks that do not change the pixels of the first image: PNG (third edition), section 11.3, and its extensions."""


def _png(data: bytes) -> tuple[bytes, dict[str, Any]]:
    kept, found, at = [data[:8]], {}, 8
    while at + 12 <= len(data) or (at + 8 <= len(data) and data[at + 4 : at + 8] in _PNG_METADATA):
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if not name.isalpha() or (end > len(data) and name not in _PNG_METADATA):
            break
        body = memoryview(data)[at + 8 : end - 4]
        if name not in _PNG_METADATA and not _is_foreign(name, body, data[end - 4 : end]):
            kept.append(data[at:end])
        elif name == b"eXIf":
            found["exif"] = b"Exif\0\0" + bytes(body)
        elif name in (b"iTXt", b"tEXt", b"zTXt"):
            found |= _png_text(name, bytes(body))
        at = end
    return b"".join([*kept, data[at:]]), found


def _is_foreign(name: bytes, body: memoryview, checksum: bytes) -> bool:
    """Whether a chunk is one of somebody's own. One with a wrong checksum may have been of another kind."""
    ancillary = name[:1].islower() and name not in _PNG_PIXELS
    return ancillary and zlib.crc32(body, zlib.crc32(name)).to_bytes(4, "big") == checksum


def _png_text(name: bytes, body: bytes) -> dict[str, Any]:
    """The text, where it is of the two keywords that can hold an orientation."""
    keyword, _, rest = body.partition(b"\0")
    if keyword not in (b"XML:com.adobe.xmp", b"Raw profile type exif"):
        return {}
    packed = name == b"zTXt"
    if packed:
        rest = rest[1:]  # the method of compression: there is one
    elif name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _TEXT_LIMIT)
        except zlib.error:
            return {}
    if keyword == b"XML:com.adobe.xmp":
        return {"xmp": rest}
    return {"Raw profile type exif": rest.decode("latin-1")}


def _jpeg(data: bytes) -> tuple[bytes, dict[str, Any]]:
    kept, exif, found, at = [data[:2]], b"", {}, 2
    for at, end in jpeg_segments(data):
        marker, body = data[at + 1], memoryview(data)[at + 4 : end]
        if marker == 0xE1 and body[:6] == b"Exif\0\0":
            exif += body[6:]
        elif marker == 0xE1 and body[:29] == b"http://ns.adobe.com/xap/1.0/\0":
            found["xmp"] = bytes(body[29:])
        # Of the application's segments, these two say what the colours are (libjpeg, jdmarker.c: 14 and 12 bytes).
        colour = (marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 14) or (
            marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12
        )
        if colour or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]), found | ({"exif": b"Exif\0\0" + exif} if exif else {})


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each segment with a length before the first scan (ITU T.81, B.1.1)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # a byte that fills
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in (0xDA, 0xD9) or not at + 4 <= end <= len(data):
            return
        yield at, end
        at = end


def _webp(data: bytes) -> tuple[bytes, dict[str, Any]]:
    kept, found, at = [], {}, 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + length + length % 2]
        if name == b"VP8X":  # RFC 9649, 2.7.1: of its flags, those of profile, EXIF and XMP are cleared
            kept.append(chunk[:8] + bytes([chunk[8] & 0b11010011]) + chunk[9:] if length else chunk)
        elif name in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            kept.append(chunk)
        elif name == b"EXIF":
            found["exif"] = chunk[8 : 8 + length]
        elif name == b"XMP ":
            found["xmp"] = chunk[8 : 8 + length]
        at += 8 + length + length % 2
    body = b"".join(kept)
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body, found
