"""What the first directory of a TIFF file says: enough to name an image that Pillow cannot decode, and to leave out
tags that say nothing about the pixels.

Sources: TIFF 6.0 (1992), sections 2 and 8; BigTIFF (libtiff's description); tag and compression numbers as libtiff's
tiff.h has them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Directory", "bare", "read", "sound"]

_UNITS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_SIZES = {**{kind: struct.calcsize(form) for kind, form in _UNITS.items()}, 5: 8, 10: 8, 18: 8}
_MOST_VALUES = 64
"""Values of one tag that are looked at."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 256, 257, 258, 259, 262, 277, 284
_SUBFILE, _SUB_DIRECTORIES, _EXTRA, _FORMAT, _XMP, _ORIENTATION, _DNG = 254, 330, 338, 339, 700, 274, 50706
_SUBSAMPLING = 530
_PIXELS = (
    frozenset((_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR, _EXTRA, _FORMAT))
    | frozenset((266, 273, 278, 279, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334, 340, 341, 347, 50674))
    | frozenset((512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532))
)
"""Tags that decide about the pixels of one image and how it is turned."""

_COMPRESSIONS = {
    1: "uncompressed",
    2: "CCITT modified Huffman",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    6: "old-style JPEG",
    7: "JPEG",
    8: "Deflate",
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT RLE",
    32773: "PackBits",
    32809: "ThunderScan",
    32946: "Deflate",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG XL",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of a DNG",
    34925: "LZMA",
    34926: "Zstandard",
    34927: "WebP",
    34933: "PNG",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_DECODED = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34925, 50000))
"""Compressions that the libtiff in Pillow's wheels decodes."""
_COLOURS = {
    0: "grey, white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
    51177: "depth map",
}
_FORMATS = {1: "uint", 2: "int", 3: "float", 4: "undefined", 5: "complex int", 6: "complex float"}


@dataclass(frozen=True)
class Directory:
    """The entries of the first directory. `values` has the numbers of those whose data is in the file."""

    order: str
    big: bool
    start: int
    """Where the directory is in the file."""
    count: int
    """How many entries are there, twice given ones included."""
    entries: tuple[tuple[int, bytes], ...]
    """Tag and the bytes of the whole entry, in the order of the file; of a tag that is there twice, the first."""
    values: dict[int, tuple[int | float, ...]]
    whole: bool
    """Whether nothing lies outside the file: neither an entry, nor its data, nor the end of the directory."""
    follows: bool
    """Whether another directory follows."""

    def first(self, tag: int, otherwise: int) -> int:
        """The first value of a tag."""
        return int(self.values.get(tag, (otherwise,))[0])

    @cached_property
    def bands(self) -> int:
        """Samples per pixel."""
        return self.first(_SAMPLES, 1)

    @cached_property
    def extra(self) -> tuple[int, ...]:
        """What the bands beside the colours mean: 0 nothing that the file says, 1 and 2 alpha."""
        return tuple(int(value) for value in self.values.get(_EXTRA, ()))

    @cached_property
    def formats(self) -> tuple[int, ...]:
        """Sample formats, one of each kind that occurs."""
        return tuple(sorted({int(value) for value in self.values.get(_FORMAT, (1,))}))

    @property
    def complete(self) -> bool:
        """Whether the tags without which there is no image are there."""
        return all(self.first(tag, 0) > 0 for tag in (_WIDTH, _HEIGHT)) and any(
            tag in self.values for tag in (273, 324, 513)
        )

    @property
    def decoded(self) -> bool:
        """Whether the compression is one that is decoded, so that an error in the pixels is damage."""
        compression = self.first(_COMPRESSION, 1)
        return compression in _DECODED and not (compression == 7 and self.bits != (8,))  # JPEG of 12 bits

    @property
    def misread(self) -> bool:
        """Whether Pillow's own unpacking gives wrong pixels, and libtiff's is needed.

        Uncompressed, it takes 16-bit planes for 8 bits, forgets where white is zero, and takes colour differences of
        2 x 2 pixels (YCbCrSubSampling) for those of one.
        """
        subsampled = self.first(_PHOTOMETRIC, 0) == 6 and self.values.get(_SUBSAMPLING, (1, 1)) != (1, 1)
        return self.first(_COMPRESSION, 1) == 1 and (self.first(_PLANAR, 1) == 2 or subsampled)

    def unusable(self) -> str | None:
        """Why the pixels have no defined RGB, although Pillow may give some; None where they may have one."""
        if _DNG in self.values:
            return "a camera raw image (DNG): the first image in it is a preview, or not developed"
        if self.first(_SUBFILE, 0) & 1 and (self.follows or _SUB_DIRECTORIES in self.values):
            return "a TIFF whose first image is a reduced one of another in the same file"
        if 3 in self.formats:
            return f"{self.describe()}: floating-point numbers have no defined white"
        if set(self.formats) - {1, 2} or (2 in self.formats and (self.bits == (8,) or self.bands > 1)):
            return f"{self.describe()}: numbers of this kind have no defined black and white"
        spare = self.extra.count(0)
        if spare:
            return f"{self.describe()}: {spare} of the bands {'has' if spare == 1 else 'have'} no colour"
        return None

    @cached_property
    def bits(self) -> tuple[int, ...]:
        """Bits per sample, one of each kind that occurs."""
        return tuple(sorted({int(value) for value in self.values.get(_BITS, (1,))}))

    def describe(self) -> str:
        """The layout in words: bands, type, colours, compression."""
        number = self.formats[0] if len(self.formats) == 1 else 0
        types = [f"{_FORMATS.get(number, 'mixed types, ')}{bits}" for bits in self.bits]
        colour, compression = self.first(_PHOTOMETRIC, 0), self.first(_COMPRESSION, 1)
        kind = ("big-endian " if self.order == ">" else "") + "BigTIFF" if self.big else "TIFF"
        words = [
            f"a {kind} of {self.bands} band{'s' if self.bands > 1 else ''} of {' and '.join(types)}",
            _COLOURS.get(colour, f"photometric interpretation {colour}"),
            _COMPRESSIONS.get(compression, f"compression {compression}"),
        ]
        return ", ".join(words + (["planes stored one by one"] if self.first(_PLANAR, 1) == 2 else []))


def read(data: bytes) -> Directory | None:
    """The first directory, as far as it is in the file; None where it is not."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, offset_form, entry_size = ("Q", "Q", 20) if big else ("H", "I", 12)
    start = 8 if big else 4
    try:
        (at,) = struct.unpack_from(order + offset_form, data, start)
        (count,) = struct.unpack_from(order + head, data, at)
    except (struct.error, OverflowError):
        return None
    begin, at = at, at + struct.calcsize(head)
    there = min(count, max(0, len(data) - at) // entry_size, 0xFFFF)
    end = at + there * entry_size
    whole = there == count and end + struct.calcsize(offset_form) <= len(data)
    follows = whole and any(data[end : end + struct.calcsize(offset_form)])
    entries: dict[int, bytes] = {}
    values: dict[int, tuple[int | float, ...]] = {}
    total = 0
    for place in range(at, end, entry_size):
        entry = data[place : place + entry_size]
        (tag,) = struct.unpack_from(f"{order}H", entry)
        if tag in entries:
            continue
        entries[tag] = entry
        size, found = _values(data, entry, order, big)
        total += size
        if found is None or total > len(data):
            whole = False
        elif found:
            values[tag] = found
    return Directory(order, big, begin, there, tuple(entries.items()), values, whole, follows)


def _values(data: bytes, entry: bytes, order: str, big: bool) -> tuple[int, tuple[int | float, ...] | None]:
    """Bytes outside the entry, and its first values; None where they are outside the file."""
    _, kind, count = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", entry)
    size, room = count * _SIZES.get(kind, 1), 8 if big else 4
    inline = size <= room
    start = 0 if inline else struct.unpack_from(order + ("Q" if big else "I"), entry, len(entry) - room)[0]
    if not inline and start + size > len(data):
        return size, None
    form = _UNITS.get(kind)
    if form is None:
        return (0 if inline else size), ()
    source, at = (entry, len(entry) - room) if inline else (data, start)
    return (0 if inline else size), struct.unpack_from(f"{order}{min(count, _MOST_VALUES)}{form}", source, at)


def sound(data: bytes) -> bytes:
    """`data` itself, or without the tags beside the pixels' where one of them lies outside the file.

    Pillow stops reading tags at such a one, and would go on without those that follow it.
    """
    found = read(data)
    return data if found is None or found.whole else bare(data)


def bare(data: bytes) -> bytes:
    """The file with the pixels' tags alone in its first directory (and XMP, where that may hold the orientation).

    They stand where the directory was. Nothing is added at the end: what a cut file lacks must stay lacking.
    """
    found = read(data)
    if found is None:
        return data
    tags = _PIXELS if _ORIENTATION in found.values else _PIXELS | ({_XMP} & found.values.keys())
    kept = sorted(entry for entry in found.entries if entry[0] in tags)
    offset, head = ("Q", "Q") if found.big else ("I", "H")
    directory = struct.pack(found.order + head, len(kept)) + b"".join(entry for _, entry in kept)
    directory += bytes(struct.calcsize(offset))
    return data[: found.start] + directory + data[found.start + len(directory) :] if len(kept) < found.count else data
