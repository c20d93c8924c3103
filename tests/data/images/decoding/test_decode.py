"""Every format and mode has one defined RGB, and a damaged file is an error, never a grey image."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib

import numpy as np
import pytest
from harness.errors import raised
from PIL import Image, ImageFile

from raycls.data.images.decoding.decode import decode
from raycls.data.making.bad import BadImageError
from raycls.errors import DataError

ALL = ("jpeg", "png", "webp", "bmp", "tiff", "gif")


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _decode(data: bytes, formats: tuple[str, ...] = ALL, max_pixels: int = 10**6) -> np.ndarray:
    image = decode(data, "x/y.jpg", formats=formats, max_pixels=max_pixels)
    assert image.mode == "RGB"
    return np.asarray(image)


def _noise(height: int = 13, width: int = 17) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: `rows` are unfiltered scan lines, each beginning with a zero byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _tiff16(values: np.ndarray, *, order: str, bits: int = 16, photometric: int = 1, kind: int = 1) -> bytes:
    """A grey TIFF of one strip, written by hand; `order` is `<` or `>`."""
    if bits == 12:
        pairs = values.reshape(-1, 2)
        a, b = pairs[:, 0], pairs[:, 1]
        strip = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()
    else:
        strip = values.astype(f"{order}{'i2' if kind == 2 else 'u2'}").tobytes()
    height, width = values.shape
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, len(strip)),
        (339, 3, kind),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, form, 1)
        + (struct.pack(f"{order}HH", value, 0) if form == 3 else struct.pack(f"{order}I", value))
        for tag, form, value in tags
    )
    start = 8 + len(strip)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + strip + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    image = _noise()
    np.testing.assert_array_equal(_decode(_encode(image, kind)), np.asarray(image))


def test_lossless_webp_gives_the_pixels_back() -> None:
    image = _noise()
    np.testing.assert_array_equal(_decode(_encode(image, "webp", lossless=True)), np.asarray(image))


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_lossy_formats_are_near(kind: str) -> None:
    image = Image.new("RGB", (32, 24), (200, 40, 90))
    pixels = _decode(_encode(image, kind, quality=95))
    assert pixels.shape == (24, 32, 3)
    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() <= 4


def test_content_decides_not_the_name() -> None:
    png = _encode(_noise(), "png")
    decode(png, "wrong.jpg", formats=("png",), max_pixels=1000)
    with pytest.raises(DataError, match=r"wrong\.jpg") as caught:
        decode(png, "wrong.jpg", formats=("jpeg",), max_pixels=1000)
    assert caught.value.found == "this is png"
    assert "jpeg" in (caught.value.valid or "")


def test_grey_repeats_its_value() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    np.testing.assert_array_equal(_decode(_encode(Image.fromarray(grey), "png")), grey[..., None].repeat(3, 2))


def test_one_bit() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    for kind in ("png", "bmp", "tiff"):
        np.testing.assert_array_equal(_decode(_encode(bits, kind))[..., 1], [[0, 255], [255, 0]])


WIDE = np.array([[0, 1, 128, 129], [257, 385, 386, 65535]])
NARROW = np.array(
    [[0, 0, 0, 1], [1, 1, 2, 255]]
)  # WIDE / 257, by hand: 128/257 < 0.5 < 129/257, 385/257 < 1.5 < 386/257


def test_sixteen_bit_png_is_scaled() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in WIDE)
    np.testing.assert_array_equal(_decode(_png(4, 2, 16, 0, rows))[..., 0], NARROW)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_is_scaled(order: str) -> None:
    np.testing.assert_array_equal(_decode(_tiff16(WIDE, order=order))[..., 2], NARROW)


def test_twelve_bit_tiff_is_scaled() -> None:
    values = np.array([[0, 4095], [2048, 16]])
    # 2048 * 255 / 4095 = 127.53, 16 * 255 / 4095 = 0.996
    np.testing.assert_array_equal(_decode(_tiff16(values, order="<", bits=12))[..., 0], [[0, 255], [128, 1]])


def test_tiff_where_white_is_zero() -> None:
    pixels = _decode(_tiff16(WIDE, order="<", photometric=0))[..., 0]
    np.testing.assert_array_equal(pixels, 255 - NARROW)


def test_negative_grey_is_refused() -> None:
    with pytest.raises(DataError, match="-5 to 7"):
        _decode(_tiff16(np.array([[-5, 7]]), order="<", kind=2))


def test_sixteen_bit_transparent_grey_is_white() -> None:
    trns = b"\0\0\0\x02tRNS" + struct.pack(">H", 257)
    trns += struct.pack(">I", zlib.crc32(trns[4:]))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in WIDE)
    expected = NARROW.copy()
    expected[1, 0] = 255
    np.testing.assert_array_equal(_decode(_png(4, 2, 16, 0, rows, trns))[..., 0], expected)


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    row = b"\0" + struct.pack(">HHH", 0x12FF, 0x0000, 0xFF01)
    assert _decode(_png(1, 1, 16, 2, row)).tolist() == [[[0x12, 0x00, 0xFF]]]


def test_floating_point_tiff_is_refused() -> None:
    data = _encode(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "tiff")
    with pytest.raises(DataError, match="floating-point"):
        _decode(data)


def test_alpha_is_laid_over_white() -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 127]]], dtype=np.uint8)
    # 255 - 127 * 255 / 255 = 128
    expected = [[[10, 20, 30], [255, 255, 255], [128, 128, 128]]]
    for kind in ("png", "tiff"):
        assert _decode(_encode(Image.fromarray(pixels), kind)).tolist() == expected
    assert _decode(_encode(Image.fromarray(pixels), "webp", lossless=True, exact=True)).tolist() == expected


def test_grey_with_alpha() -> None:
    grey = Image.fromarray(np.array([[[50, 255], [50, 0]]], dtype=np.uint8), "LA")
    assert _decode(_encode(grey, "png"))[0, :, 0].tolist() == [50, 255]


def test_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 100, 50] + [0] * 762)
    image.putpixel((1, 0), 1)
    for kind in ("png", "gif", "bmp", "tiff"):
        assert _decode(_encode(image, kind)).tolist() == [[[1, 2, 3], [200, 100, 50]]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.putpixel((1, 0), 1)
    data = _encode(image, "png", transparency=transparency)
    assert _decode(data).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_one_transparent_colour() -> None:
    image = Image.fromarray(np.array([[[9, 9, 9], [8, 8, 8]]], dtype=np.uint8))
    assert _decode(_encode(image, "png", transparency=(9, 9, 9))).tolist() == [[[255] * 3, [8] * 3]]
    grey = Image.fromarray(np.array([[9, 8]], dtype=np.uint8))
    assert _decode(_encode(grey, "png", transparency=9)).tolist() == [[[255] * 3, [8] * 3]]


def test_cmyk() -> None:
    """Cyan alone takes away red; a JPEG of Pillow's holds inverted inks, as Adobe's do."""
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert _decode(_encode(image, "tiff"))[5, 5].tolist() == [0, 255, 255]
    near = _decode(_encode(image, "jpeg", quality=100))[5, 5].astype(int)
    assert np.abs(near - (0, 255, 255)).max() <= 3


def test_ycbcr_and_lab() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    pixels = _decode(_encode(red.convert("YCbCr"), "tiff"))[4, 4].astype(int)
    assert np.abs(pixels - (255, 0, 0)).max() <= 3
    grey = Image.new("LAB", (8, 8), (255, 128, 128))  # lightness 100, no colour
    assert _decode(_encode(grey, "tiff"))[4, 4].min() >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpeg"])
def test_orientation(orientation: int, kind: str) -> None:
    """A stored image and its tag give the upright one. EXIF 2.32, table 6: what the 0th row and column are."""
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[8:, :8] = (0, 0, 255)
    undo = {  # how an upright picture is stored under the tag
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
    pixels = _decode(_encode(stored, kind, exif=exif, **options))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 3


def test_a_broken_exif_block_counts_as_none() -> None:
    image = _noise()
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12"):
        plain, marked = _encode(image, "jpeg"), _encode(image, "jpeg", exif=exif)
        assert marked != plain
        np.testing.assert_array_equal(_decode(marked), _decode(plain))


@pytest.mark.parametrize("kind", ["gif", "webp", "tiff", "png"])
def test_of_several_frames_the_first(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "webp" else {}
    data = _encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert _decode(data)[2, 2].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\n <HTML>", "an HTML page"),
        (b"hello, this is a note\n", "text, it begins 'hello"),
        (bytes(5000), "zero bytes"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"<svg xmlns='x'/>", "SVG"),
        (b"\x01\x02\x03\xfe", "01 02 03 fe"),
        (b"BM this is prose", "as bmp"),
        (b"\xff\xd8\xff", "as jpeg"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "as webp"),
    ],
)
def test_what_is_no_image_says_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=r"x/y\.jpg") as caught:
        _decode(data)
    assert reason in (caught.value.found or "")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png", "webp", "vp8x", "bmp", "tiff", "tiff_lzw", "gif"])
def test_a_truncated_file_is_an_error_or_whole(kind: str) -> None:
    """Wherever a file is cut, the rest is refused, or (a missing end mark) gives the pixels of the whole."""
    image = _noise(40, 50)
    data = {
        "jpeg": lambda: _encode(image, "jpeg"),
        "progressive": lambda: _encode(image, "jpeg", progressive=True),
        "vp8x": lambda: _encode(image.convert("RGBA"), "webp", exif=b"Exif\0\0"),
        "tiff_lzw": lambda: _encode(image, "tiff", compression="tiff_lzw"),
    }.get(kind, lambda: _encode(image, kind))()
    whole = _decode(data)
    refused = 0
    cuts = [1, 2, 3, 5, 8, 16, 30, 64, *range(100, len(data), max(1, len(data) // 60)), len(data) - 2, len(data) - 1]
    for cut in cuts:
        try:
            pixels = _decode(data[:cut])
        except DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, whole, err_msg=f"cut at {cut} of {len(data)}")
    assert refused > len(cuts) * 0.8


def test_truncation_is_refused_even_if_pillow_was_told_to_accept_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encode(_noise(100, 100), "jpeg")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="ends too early"):
        _decode(data[: len(data) // 2])


def test_flipped_bytes_never_raise_anything_else() -> None:
    generator = np.random.default_rng(1)
    for kind in ALL:
        data = _encode(_noise(), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for position in generator.integers(0, min(len(data), 200), 3):
                damaged[position] = int(generator.integers(0, 256))
            with contextlib.suppress(DataError):
                _decode(bytes(damaged))


def _webp_header(width: int, height: int, chunk: bytes) -> bytes:
    if chunk == b"VP8X":
        body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif chunk == b"VP8L":
        body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(8)
    else:
        body = b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8)
    payload = b"WEBP" + chunk + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(payload)) + payload


BOMBS = {
    "png": _png(10_000, 10_000, 8, 2, b"\0"),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 10_000, 10_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a"
    + struct.pack("<HHBBB", 10_000, 10_000, 0, 0, 0)
    + b"\x2c"
    + struct.pack("<HHHHB", 0, 0, 10_000, 10_000, 0)
    + b"\x02\x02\x4c\x01\0\x3b",
    "tiff": _tiff16(np.zeros((1, 1)), order="<").replace(
        struct.pack("<HHIHH", 256, 3, 1, 1, 0) + struct.pack("<HHIHH", 257, 3, 1, 1, 0),
        struct.pack("<HHIHH", 256, 3, 1, 10_000, 0) + struct.pack("<HHIHH", 257, 3, 1, 10_000, 0),
    ),
    "webp_x": _webp_header(10_000, 10_000, b"VP8X"),
    "webp_lossless": _webp_header(10_000, 10_000, b"VP8L"),
    "webp_lossy": _webp_header(10_000, 10_000, b"VP8 "),
    "jpeg": _encode(Image.new("RGB", (16, 16)), "jpeg").replace(
        b"\xff\xc0\x00\x11\x08\x00\x10\x00\x10", b"\xff\xc0\x00\x11\x08\x27\x10\x27\x10"
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    """100 million pixels in a few bytes. Nothing of it is decoded: the message is the one about the size."""
    assert len(BOMBS[kind]) < 1000
    with raised(BadImageError, found=re.compile(r"^10000 x 10000 = 100\.0 "), fix=re.compile(r"data\.max_pixels")):
        _decode(BOMBS[kind], max_pixels=50_000_000)


def test_the_cap_is_inclusive() -> None:
    data = _encode(_noise(10, 10), "png")
    assert _decode(data, max_pixels=100).shape == (10, 10, 3)
    with raised(BadImageError, found=re.compile("^10 x 10 ")):
        _decode(data, max_pixels=99)


def test_a_side_of_zero_is_refused() -> None:
    with pytest.raises(DataError, match="damaged"):
        _decode(_png(0, 5, 8, 0, b"\0"))


@pytest.mark.filterwarnings("error")
def test_odd_metadata_is_no_warning() -> None:
    """Pillow warns about this EXIF block (it ends too early); the pixels are as without it."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\x7f\x08\0\0\0"
    marked = _encode(_noise(), "jpeg", exif=exif)
    with pytest.warns(UserWarning, match="Corrupt EXIF|Skipping tag"):
        Image.open(io.BytesIO(marked)).getexif()
    np.testing.assert_array_equal(_decode(marked), _decode(_encode(_noise(), "jpeg")))
