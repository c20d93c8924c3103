"""Image files written by hand, byte by byte, for what no library writes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

from PIL import Image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"", *, after: bytes = b""
) -> bytes:
    """`rows` are unfiltered scan lines, each beginning with a zero byte; `extra` and `after` stand around them."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", zlib.compress(rows)), after, png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    strips: Sequence[bytes],
    tags: Mapping[int, tuple[int, Sequence[int]]],
    *,
    order: str = "<",
    raw: Sequence[tuple[int, int, int, int]] = (),
) -> bytes:
    """A TIFF of `strips`. `tags` are type (3: 16 bits, 4: 32 bits) and values; `raw` whole entries as they stand there.

    The tags of the strips' places are added.
    """
    places, body = [], b""
    for strip in strips:
        places.append(8 + len(body))
        body += strip
    found = {**tags, 273: (4, places), 279: (4, [len(strip) for strip in strips])}
    entries: list[tuple[int, bytes]] = [(tag, struct.pack(f"{order}HHII", tag, *rest)) for tag, *rest in raw]
    for tag, (kind, values) in found.items():
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            offset, body = 8 + len(body), body + packed
            packed = struct.pack(f"{order}I", offset)
        entries.append((tag, struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(body))
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entry for _, entry in sorted(entries))
    return head + body + directory + bytes(4)
