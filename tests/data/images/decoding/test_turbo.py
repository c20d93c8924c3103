"""What is decoded without Pillow has Pillow's pixels to the bit, and Pillow's decision about every file stays."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from raycls.data.images.decoding import turbo
from raycls.data.images.decoding.decode import decode, decoded
from raycls.errors import DataError

MOST = 10**6
SIZES = ((1, 1), (1, 17), (7, 9), (8, 8), (16, 16), (17, 33), (100, 75))


def _jpeg(height: int = 45, width: int = 70, mode: str = "RGB", **options: object) -> bytes:
    """Noise of two scales, so that every coefficient and every edge counts."""
    random = np.random.default_rng(height * 1000 + width)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(coarse).astype(int) + random.integers(-60, 60, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode).save(buffer, "jpeg", **options)
    return buffer.getvalue()


def _outcome(read: Callable[..., object], data: bytes, **options: object) -> object:
    """Pixels, or what the error says of the file."""
    try:
        return np.asarray(read(data, "x.jpg", **{"formats": ("jpeg", "png"), "max_pixels": MOST, **options}))
    except DataError as error:
        return error.what, error.where, error.found, error.valid, error.fix


def _same(data: bytes, **options: object) -> None:
    np.testing.assert_equal(_outcome(decoded, data, **options), _outcome(decode, data, **options))


def _segment(data: bytes, marker: int) -> tuple[int, int]:
    """Start and end of the first segment of this marker."""
    start = data.index(bytes((0xFF, marker)))
    return start, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def _patched(data: bytes, at: int, value: int) -> bytes:
    """With another byte in the start of frame, counted from its precision."""
    start = _segment(data, 0xC0)[0] + 4
    return data[: start + at] + bytes([value]) + data[start + at + 1 :]


def _without_jfif(data: bytes) -> bytes:
    start, end = _segment(data, 0xE0)
    return data[:start] + data[end:]


def _plain() -> Iterator[bytes]:
    for (height, width), subsampling, quality in itertools.product(SIZES, (0, 1, 2), (20, 90, 100)):
        yield _jpeg(height, width, subsampling=subsampling, quality=quality)
    for subsampling, progressive in itertools.product((0, 1, 2), (False, True)):
        yield _jpeg(subsampling=subsampling, progressive=progressive, optimize=True)
        yield _jpeg(subsampling=subsampling, progressive=progressive, restart_marker_rows=1)
        yield _jpeg(subsampling=subsampling, progressive=progressive, restart_marker_blocks=3)
    for (height, width), progressive in itertools.product(SIZES, (False, True)):
        yield _jpeg(height, width, "L", progressive=progressive)
    yield _jpeg(comment=b"of no matter", icc_profile=b"a profile" * 9999)
    yield _without_jfif(_jpeg())


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_pixels_of_usual_files_are_those_of_pillow() -> None:
    files = list(_plain())
    assert len(files) == 63 + 18 + 14 + 2
    for data in files:
        np.testing.assert_array_equal(turbo.pixels(data, MOST), np.asarray(_outcome(decode, data)))


def test_orientation_is_applied_by_pillow() -> None:
    for orientation in range(10):
        data = _jpeg(exif=_exif(orientation))
        _same(data)
        assert (turbo.pixels(data, MOST) is None) == (2 <= orientation <= 8 or orientation in (0, 9))
    assert turbo.pixels(_jpeg(exif=Image.Exif()), MOST) is not None
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    turned = _jpeg(xmp=xmp)
    _same(turned)
    assert np.asarray(_outcome(decoded, turned)).shape == (70, 45, 3)
    _same(_jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_cut_off_files_are_refused_as_by_pillow(mode: str, progressive: bool) -> None:
    data = _jpeg(mode=mode, progressive=progressive, restart_marker_rows=2)
    refused = 0
    for length in range(2, len(data), 23):
        for end in (b"", b"\xff\xd9", b"\xff", b"\xff\xd0"):
            _same(data[:length] + end)
        refused += isinstance(_outcome(decoded, data[:length]), tuple)
    assert refused == len(range(2, len(data), 23))
    _same(data + b"more bytes after the end")
    _same(data + data)


def test_damaged_files_get_the_decision_of_pillow() -> None:
    random = np.random.default_rng(7)
    accepted = 0
    for turn in range(300):
        data = bytearray(_jpeg(progressive=bool(turn % 2), restart_marker_rows=turn % 3))
        for at in random.integers(2, len(data), turn % 4 + 1):
            data[at] = int(random.integers(0, 256))
        _same(bytes(data))
        accepted += turbo.pixels(bytes(data), MOST) is not None
    assert 10 < accepted < 290  # the fast way takes some of them, and leaves some


RARE = {
    "CMYK": _jpeg(mode="CMYK"),
    "4:1:1": _patched(_jpeg(subsampling=1), 7, 0x41),
    "grey, 2 x 2": _patched(_jpeg(mode="L"), 7, 0x22),
    "4:4:0": _patched(_jpeg(subsampling=0), 7, 0x12),
    "12 bits": _patched(_jpeg(), 0, 12),
    "no height": _patched(_patched(_jpeg(), 1, 0), 2, 0),
    "RGB by its identifiers": _patched(_without_jfif(_jpeg()), 6, ord("R")),
    "RGB by Adobe": _without_jfif(_jpeg()).replace(b"\xff\xd8", b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0", 1),
    "arithmetic coding": _jpeg().replace(b"\xff\xc0", b"\xff\xc9", 1),
    "no end": _jpeg()[:-2],
    "nothing but a start": b"\xff\xd8\xff",
    "half a segment": b"\xff\xd8\xff\xe0\0\x10",
}


@pytest.mark.parametrize("kind", RARE)
def test_rare_kinds_are_left_to_pillow(kind: str) -> None:
    assert turbo.pixels(RARE[kind], MOST) is None
    _same(RARE[kind])


@pytest.mark.parametrize("comment", [b"\xff\xda", b"\xff\xda" * 9 + b"x", b"x" * 3000, b"\xff\xff\xda\xff"])
def test_what_a_file_begins_with_is_not_taken_for_its_scan(comment: bytes) -> None:
    plain = _jpeg()
    long = plain[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + plain[2:]
    scan = long.index(b"\xff\xda", 6 + len(comment))
    for data in (
        long,
        long[: scan + 2],
        long[: scan + 3],
        long[:scan] + b"\xff" + long[scan:],
        plain[:2] + long[scan:],
    ):
        for _ in range(2):  # the second time, what was found is remembered
            _same(data)
    for _ in range(2):
        assert turbo.size(long, MOST) == turbo.size(plain, MOST) == (45, 70)


def test_limits_hold_before_anything_is_decoded() -> None:
    data = _jpeg(40, 50)
    assert turbo.pixels(data, 2000) is not None
    assert turbo.pixels(data, 1999) is None
    _same(data, max_pixels=1999)
    _same(data, formats=("png",))


def test_another_library_under_pillow_decodes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_SAME_LIBRARY", False)
    assert turbo.pixels(_jpeg(), MOST) is None
    assert isinstance(decoded(_jpeg(), "x.jpg", formats=("jpeg",), max_pixels=MOST), Image.Image)
