"""What is whole but not decoded is named, and what Pillow would read wrongly is read rightly or refused."""

from __future__ import annotations

import shlex
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from harness.images import encode, png, png_chunk, tiff
from PIL import Image

from raycls.data.images.decoding.decode import decode
from raycls.errors import DataError

ALL = ("jpeg", "png", "webp", "bmp", "tiff", "gif")


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, "x/y.jpg", formats=ALL, max_pixels=10**6))


def _refused(data: bytes) -> str:
    with pytest.raises(DataError, match="not supported") as caught:
        _decode(data)
    assert caught.value.where == "x/y.jpg"
    assert "PNG" in (caught.value.fix or "")
    return caught.value.found or ""


def _tiff(
    array: np.ndarray,
    photometric: int = 1,
    *,
    order: str = "<",
    planes: bool = False,
    compression: int = 1,
    **tags: object,
) -> bytes:
    """An array `[H, W]` or `[H, W, bands]` as a TIFF; `tags` are `extra` (ExtraSamples), or `t254` and the like."""
    height, width, bands = (*array.shape, 1)[:3]
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[array.dtype.kind]
    bits = array.dtype.itemsize * 8
    stored = array.astype(np.dtype(f"{order}{array.dtype.str[1:]}")).reshape(height, width, bands)
    strips = [stored[..., band].tobytes() for band in range(bands)] if planes else [stored.tobytes()]
    given: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * bands),
        259: (3, [compression]),
        262: (3, [photometric]),
        277: (3, [bands]),
        278: (4, [height]),
        284: (3, [2 if planes else 1]),
        339: (3, [kind] * bands),
    }
    extra = tags.pop("extra", None)
    if extra is not None:
        given[338] = (3, list(extra))  # type: ignore[call-overload]
    given |= {int(name[1:]): (3, [value]) for name, value in tags.items()}  # type: ignore[misc]
    return tiff(strips, given, order=order)


def _values(dtype: str, *shape: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, min(65535, np.iinfo(dtype).max), shape).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bands", "words"),
    [
        ("float16", 1, "1 band of float16"),
        ("float32", 1, "1 band of float32"),
        ("float64", 3, "3 bands of float64"),
        ("float32", 5, "5 bands of float32"),
        ("int8", 1, "1 band of int8"),
        ("int16", 3, "3 bands of int16"),
        ("uint8", 2, "2 bands of uint8"),
        ("uint8", 5, "5 bands of uint8"),
        ("uint16", 7, "7 bands of uint16"),
        ("uint64", 1, "1 band of uint64"),
        ("complex64", 1, "1 band of complex float64"),
    ],
)
def test_bands_and_types_of_a_tiff(dtype: str, bands: int, words: str, planes: bool, order: str) -> None:
    array = _values(dtype, 4, 6, bands) if dtype != "complex64" else np.zeros((4, 6, 1), dtype)
    extra = [0] * (bands - 1) if bands in (2, 5, 7) else None
    found = _refused(_tiff(array, 2 if bands == 3 else 1, order=order, planes=planes, extra=extra))
    assert f"a TIFF of {words}, " in found
    assert ("planes" in found) == planes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_tiff(_values("uint8", 4, 6, 4), 2, extra=[0]), "4 bands of uint8, RGB"),
        (_tiff(_values("uint16", 4, 6), 32803), "colour filter array"),
        (_tiff(_values("uint8", 4, 6), compression=34887), "LERC"),
        (_tiff(_values("uint8", 4, 6), compression=34712), "JPEG 2000"),
        (_tiff(_values("uint8", 4, 6), compression=31999), "compression 31999"),
        (_tiff(_values("uint8", 4, 6), t50706=1), "DNG"),
        (_tiff(_values("uint8", 4, 6), t254=1, t330=8), "reduced one"),
    ],
    ids=["spare band", "CFA", "LERC", "JPEG 2000", "unknown", "DNG", "reduced"],
)
def test_kinds_of_tiff(data: bytes, words: str) -> None:
    assert words in _refused(data)


def test_a_reduced_image_that_is_the_only_one_is_decoded() -> None:
    array = _values("uint8", 4, 6)
    np.testing.assert_array_equal(_decode(_tiff(array, t254=1))[..., 0], array)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
def test_sixteen_bits_per_colour_keep_the_high_byte(planes: bool, order: str) -> None:
    array = _values("uint16", 5, 7, 3)
    np.testing.assert_array_equal(_decode(_tiff(array, 2, order=order, planes=planes)), array >> 8)


def test_planes_of_one_band() -> None:
    array = _values("uint8", 5, 7)
    np.testing.assert_array_equal(_decode(_tiff(array, planes=True))[..., 0], array)
    np.testing.assert_array_equal(_decode(_tiff(array, 0, planes=True))[..., 0], 255 - array)  # white is zero
    wide = _values("uint16", 5, 7)
    expected = np.round(wide / 257).astype(np.uint8)
    np.testing.assert_array_equal(_decode(_tiff(wide, planes=True))[..., 0], expected)


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2)])
def test_colour_differences_of_several_pixels(across: int, down: int) -> None:
    unit = bytes([76] * (across * down) + [85, 255])  # Y, Cb and Cr of red: TIFF 6.0, section 21
    data = unit * (4 // across * 4 // down)
    tags = {
        256: (4, [4]),
        257: (4, [4]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [6]),
        277: (3, [3]),
        278: (4, [4]),
    }
    pixels = _decode(tiff([data], {**tags, 530: (3, [across, down])})).astype(int)
    assert np.abs(pixels - (254, 0, 0)).max() <= 1


@pytest.mark.parametrize("kind", ALL)
def test_the_limit_of_the_config_counts_and_not_that_of_pillow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert _decode(encode(Image.fromarray(_values("uint8", 5, 7, 3)), kind)).shape == (5, 7, 3)


def test_a_cut_tiff_is_damaged_and_not_of_another_kind() -> None:
    data = bytearray(_tiff(_values("uint8", 40, 60, 3), 2))
    data[4:8] = struct.pack("<I", len(data) * 2)  # the directory was behind the cut
    with pytest.raises(DataError, match="damaged"):
        _decode(bytes(data))
    swapped = _tiff(_values("uint8", 40, 60, 3), 2, t274=1)
    strips = swapped.replace(struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 273, 4, 1, len(swapped) - 50))
    with pytest.raises(DataError, match="damaged"):
        _decode(strips)


def _frame(data: bytes) -> int:
    return data.index(b"\xff\xc0\0\x11")


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [(4, 12, "12 bits"), (4, 16, "16 bits"), (1, 0xF7, "JPEG-LS"), (1, 0xCB, "lossless"), (1, 0xC5, "hierarchical")],
)
def test_kinds_of_jpeg(offset: int, value: int, words: str) -> None:
    data = bytearray(encode(Image.fromarray(_values("uint8", 16, 16, 3)), "jpeg"))
    data[_frame(bytes(data)) + offset] = value
    assert words in _refused(bytes(data))


def test_kinds_of_bmp_and_png() -> None:
    bmp = bytearray(encode(Image.fromarray(_values("uint8", 4, 6, 3)), "bmp"))
    bmp[30:34] = struct.pack("<I", 5)
    assert "compression (5)" in _refused(bytes(bmp))
    packed = zlib.compress(b"\0\1\2\3")
    apple = png(1, 1, 8, 2, b"\0\1\2\3").replace(png_chunk(b"IDAT", packed), png_chunk(b"IDAT", packed[2:-4]))
    assert "CgBI" in _refused(apple[:8] + png_chunk(b"CgBI", bytes(4)) + apple[8:])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\x76\x2f\x31\x01\2", "OpenEXR"),
    ],
)
def test_images_of_other_formats(data: bytes, words: str) -> None:
    assert words in _refused(data)


@pytest.mark.parametrize(("kind", "options"), [("jpeg2000", {"irreversible": False}), ("avif", {"quality": 100})])
def test_the_conversion_that_is_proposed_works(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    file = tmp_path / "a b.jpg"
    file.write_bytes(encode(Image.fromarray(np.full((8, 9, 3), 120, np.uint8)), kind, **options))
    with pytest.raises(DataError) as caught:
        decode(file.read_bytes(), str(file), formats=ALL, max_pixels=1000)
    fix = caught.value.fix or ""
    words = shlex.split(fix[fix.index("python -c") : fix.index(" does that")])
    subprocess.run([sys.executable, *words[1:]], check=True)
    pixels = np.asarray(decode(file.read_bytes(), str(file), formats=ALL, max_pixels=1000))
    assert pixels.shape == (8, 9, 3)
    assert np.abs(pixels.astype(int) - 120).max() <= 2


def test_the_transparent_grey_of_few_bits() -> None:
    chunk = png_chunk(b"tRNS", struct.pack(">H", 1))
    assert _decode(png(4, 1, 2, 0, b"\0" + bytes([0b00011011]), chunk))[0, :, 0].tolist() == [0, 255, 170, 255]
    assert _decode(png(2, 1, 4, 0, b"\0" + bytes([0x12]), chunk))[0, :, 0].tolist() == [255, 34]
    assert _decode(png(2, 1, 1, 0, b"\0" + bytes([0b01000000]), chunk))[0, :, 0].tolist() == [0, 255]


def test_a_transparent_colour_of_sixteen_bits_is_refused() -> None:
    pixel = struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)
    assert "transparent colour" in _refused(png(1, 1, 16, 2, b"\0" + pixel, png_chunk(b"tRNS", pixel)))
    assert _decode(png(1, 1, 16, 2, b"\0" + pixel)).tolist() == [[[0x12, 0x56, 0x9A]]]


def test_a_palette_image_needs_its_palette() -> None:
    with pytest.raises(DataError, match="damaged"):
        _decode(png(2, 1, 8, 3, b"\0\0\1"))


def test_what_a_first_gif_frame_leaves_free_is_white() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    data = encode(image, "gif")
    at = data.index(b",", 13)
    larger = data[:6] + struct.pack("<HH", 4, 3) + data[10:at] + b"," + struct.pack("<HH", 1, 1) + data[at + 5 :]
    expected = np.full((3, 4, 3), 255)
    expected[1:, 1:3] = _decode(data)
    np.testing.assert_array_equal(_decode(larger), expected)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "QOI"])
def test_images_of_kinds_that_pillow_can_convert_are_named(kind: str) -> None:
    assert kind in _refused(encode(Image.new("RGB", (16, 16), (9, 99, 199)), kind))
