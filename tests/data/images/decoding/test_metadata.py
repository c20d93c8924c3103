"""Metadata decides nothing about pixels: large, broken or odd, it neither makes an image damaged nor changes it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from harness.images import encode, png, png_chunk, tiff
from PIL import Image, PngImagePlugin

from raycls.data.images.decoding.decode import decode
from raycls.errors import DataError

ALL = ("jpeg", "png", "webp", "bmp", "tiff", "gif")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)
TURNED = np.rot90(PIXELS, -1)  # orientation 6: the top of the scene is at the right of the file
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, "x/y.jpg", formats=ALL, max_pixels=10**6))


def _rows() -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in PIXELS)


def _png(extra: bytes = b"", after: bytes = b"") -> bytes:
    return png(7, 5, 8, 2, _rows(), extra, after=after)


def _exif(orientation: int) -> bytes:
    """A little-endian EXIF block with one tag."""
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0) + bytes(4)


LARGE = np.random.default_rng(0).bytes(1_300_000)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"p\0\0" + zlib.compress(LARGE, 1)),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_300_000)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 1_300_000)),
        png_chunk(b"tEXt", b"Comment\0" + LARGE),
        png_chunk(b"tEXt", b"transparency\0003"),  # Pillow keeps texts and its own notes in one dictionary
        png_chunk(b"tEXt", b"half")[:-4] + b"\0\0\0\0",  # a wrong checksum
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"acTL", b"\0"),
        png_chunk(b"eXIf", b"no EXIF"),
    ],
    ids=["iCCP", "zTXt", "iTXt", "tEXt", "transparency", "checksum", "pHYs", "acTL", "eXIf"],
)
def test_chunks_of_a_png(chunk: bytes, place: str) -> None:
    data = _png(chunk) if place == "before" else _png(after=chunk)
    np.testing.assert_array_equal(_decode(data), PIXELS)


def test_a_text_that_unpacks_to_gigabytes_takes_little_memory() -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    chunks = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + bomb) + png_chunk(b"iCCP", b"p\0\0" + bomb)
    tracemalloc.start()
    np.testing.assert_array_equal(_decode(_png(chunks)), PIXELS)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP + bytes(1_300_000))),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        + png_chunk(b"iCCP", b"p\0\0" + zlib.compress(LARGE, 1)),
        png_chunk(b"eXIf", _exif(6)) + png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(1_300_000))),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  32\n" + _exif(6).hex().encode()))
        + png_chunk(b"pHYs", b"\0"),
    ],
    ids=["large xmp", "xmp beside a profile", "eXIf beside a text", "raw profile"],
)
def test_the_orientation_is_kept_where_the_rest_is_left_out(chunk: bytes) -> None:
    np.testing.assert_array_equal(_decode(_png(chunk)), TURNED)


def test_a_chunk_that_may_have_been_pixels_is_not_left_out() -> None:
    palette = png_chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    whole = png(2, 1, 8, 3, b"\0\0\1", palette)
    assert _decode(whole).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    for name in (b"pLTE", b"QLTE"):  # one bit of its name has changed
        with pytest.raises(DataError, match="damaged"):
            _decode(whole.replace(b"PLTE", name))


SEGMENTS = [
    (0xE2, b"ICC_PROFILE\0"),  # without its number
    (0xE2, b"ICC_PROFILE\0\1\2" + LARGE[:60_000]),  # one part of two
    (0xE0, b"JFIF\0"),
    (0xEE, b"Adobe"),
    (0xED, b"Photoshop 3.0\0008BIM\4\4"),
    (0xE1, b"Exif\0\0" + LARGE[:100]),
    (0xE1, b"Exif\0\0"),
    (0xE2, b"MPF\0" + LARGE[:50]),
    (0xFE, LARGE[:65_000]),
]


@pytest.mark.parametrize(
    "marker, body", SEGMENTS, ids=[f"{body[:5]!r}-{index}" for index, (_, body) in enumerate(SEGMENTS)]
)
def test_segments_of_a_jpeg(marker: int, body: bytes) -> None:
    data = encode(IMAGE, "jpeg")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    np.testing.assert_array_equal(_decode(data[:2] + segment * 40 + data[2:]), expected)


def test_a_jpeg_keeps_its_orientation_beside_a_broken_segment() -> None:
    data = encode(IMAGE, "jpeg", exif=b"Exif\0\0" + _exif(6))
    plain = _decode(encode(IMAGE, "jpeg"))
    np.testing.assert_array_equal(_decode(data[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + data[2:]), np.rot90(plain, -1))
    data = encode(IMAGE, "jpeg", xmp=XMP)
    np.testing.assert_array_equal(_decode(data[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + data[2:]), np.rot90(plain, -1))


def test_chunks_of_a_webp() -> None:
    options = {"lossless": True, "exif": b"Exif\0\0" + _exif(6), "icc_profile": LARGE, "xmp": b"x" * 1_000_000}
    data = encode(IMAGE, "webp", **options)
    np.testing.assert_array_equal(_decode(data), TURNED)
    cut = data[: data.index(b"XMP ") + 100]  # the pixels come first
    np.testing.assert_array_equal(_decode(cut), TURNED)


def _tiff(raw: list[tuple[int, int, int, int]], order: str = "<", orientation: int = 6) -> bytes:
    tags = {256: (4, [7]), 257: (4, [5]), 258: (3, [8, 8, 8]), 259: (3, [1]), 262: (3, [2]), 274: (3, [orientation])}
    tags |= {277: (3, [3]), 278: (4, [5])}
    return tiff([PIXELS.tobytes()], tags, order=order, raw=raw)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "raw",
    [
        [(270, 2, 2**31, 8)],  # a description larger than the file
        [(270, 2, 100, 2**31)],  # or outside it
        [(255, 3, 50, 2**32 - 2), (305, 2, 1000, 20), (34675, 7, 2**32 - 1, 0)],
        [(270, 99, 7, 7), (50000, 0, 0, 0), (254, 13, 1, 0)],  # types that there are not
        [(tag, 3, 1, 1) for tag in range(40_000, 48_000)],
        [(34665, 4, 1, 2**31), (34853, 4, 1, 9)],  # directories of EXIF and GPS that lead nowhere
    ],
    ids=["large", "outside", "several", "types", "many", "directories"],
)
def test_tags_of_a_tiff(raw: list[tuple[int, int, int, int]], order: str) -> None:
    np.testing.assert_array_equal(_decode(_tiff(raw, order)), TURNED)


def test_comments_of_a_gif_and_a_profile_behind_a_bmp() -> None:
    grey = Image.fromarray(PIXELS[..., 0])
    gif = encode(grey, "gif")
    at = gif.index(b",", 13)
    comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 5_000 + b"\0"
    np.testing.assert_array_equal(_decode(gif[:at] + comment + gif[at:])[..., 1], PIXELS[..., 0])
    np.testing.assert_array_equal(_decode(encode(IMAGE, "bmp") + LARGE), PIXELS)


def test_ordinary_images_are_as_pillow_decodes_them() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a text", zip=True)
    options = {
        "png": {"pnginfo": info, "icc_profile": LARGE[:3000], "dpi": (72, 72)},
        "jpeg": {"icc_profile": LARGE[:90_000], "comment": b"a comment", "dpi": (72, 72)},
        "tiff": {"description": "a text", "compression": "tiff_lzw", "icc_profile": LARGE[:3000]},
        "webp": {"icc_profile": LARGE[:3000]},
    }
    for kind in ("png", "jpeg", "tiff", "webp", "bmp", "gif"):
        for mode in ("RGB", "L", "P", "CMYK", "1"):
            if mode == "CMYK" and kind not in ("jpeg", "tiff"):
                continue
            data = (
                encode(IMAGE.convert(mode), kind, **options.get(kind, {}))
                if not (mode == "P" and kind in ("jpeg", "webp"))
                else encode(IMAGE, kind)
            )
            with Image.open(io.BytesIO(data)) as plain:
                np.testing.assert_array_equal(_decode(data), np.asarray(plain.convert("RGB")), err_msg=f"{kind} {mode}")
