"""Each way to an image decides the same about the same file: the table of docs/bad-files.md."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.images import encode, png, png_chunk, tiff
from PIL import Image

from raycls.config.sections.data import DataConfig, SourceConfig, SplitConfig
from raycls.data.images.decoding.decode import decode, decoded
from raycls.data.images.decoding.kept import kept
from raycls.data.images.decoding.turbo import Encoded
from raycls.data.images.planes import RGB, Planes
from raycls.data.making.bad import BadImageError
from raycls.data.samples import Keys
from raycls.data.source import Split, open_dataset
from raycls.session.predictions.inputs import Local

_SMOOTH = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
_COLOUR = Image.fromarray(_SMOOTH)
_MOST = DataConfig().max_pixels
_FORMATS = tuple(DataConfig().formats)


def _bomb() -> bytes:
    """81 million pixels of one bit in some 10 kB."""
    return png(9000, 9000, 1, 0, bytes(9000 * (1 + 9000 // 8)))


def _header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _palette() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return encode(image, "PNG", transparency=b"\x80\xff")


def _several(kind: str) -> bytes:
    return encode(_COLOUR, kind, save_all=True, append_images=[Image.new("RGB", _COLOUR.size, "red")], lossless=True)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(_COLOUR, "PNG", exif=exif)


def _mpo() -> bytes:
    return encode(_COLOUR, "MPO", save_all=True, append_images=[Image.new("RGB", _COLOUR.size, "red")], quality=100)


def _cmyk() -> bytes:
    """Pillow writes CMYK as Adobe does: inverted, with its segment."""
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    return data


_JPEG, _PNG = encode(_COLOUR, "JPEG"), encode(_COLOUR, "PNG")
_SIXTEEN = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
_DECODED: dict[str, tuple[bytes, Any]] = {
    "a PNG called .jpg": (_PNG, _SMOOTH),
    "16-bit grey": (
        encode(Image.fromarray(_SIXTEEN), "PNG"),
        np.repeat(((_SIXTEEN.astype(int) * 255 + 32767) // 65535)[..., None], 3, 2),
    ),
    "a palette with transparency": (_palette(), [[[255, 127, 127], [0, 0, 255]]]),
    "alpha": (encode(Image.new("RGBA", (3, 2), (0, 0, 0, 0)), "PNG"), np.full((2, 3, 3), 255)),
    "CMYK": (_cmyk(), [[[255, 0, 0]] * 8] * 8),
    "an animated GIF": (_several("GIF"), None),
    "an animated WebP": (_several("WEBP"), _SMOOTH),
    "MPO": (_mpo(), None),
    "an orientation": (_turned(), np.rot90(_SMOOTH, 3)),
    "one pixel wide": (encode(Image.new("RGB", (1, 50), "red"), "PNG"), [[[255, 0, 0]]] * 50),
    "one pixel wide, JPEG": (encode(Image.new("L", (1, 50), 128), "JPEG"), [[[128, 128, 128]]] * 50),
}
"""Files, and the pixels where they are known."""
_REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file (0 bytes)"),
    **{f"a JPEG cut at {part}/6": (_JPEG[: len(_JPEG) * part // 6], "a damaged image") for part in range(1, 6)},
    **{f"a PNG cut at {part}/6": (_PNG[: len(_PNG) * part // 6], "a damaged image") for part in range(1, 6)},
    "HTML": (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    "text": (b"Too many requests\n", "text, it begins 'Too many requests"),
    "a bomb of 81 million pixels": (_bomb(), "9000 x 9000 = 81.0 million pixels"),
    "a header of 200 million pixels": (_header(20_000, 10_000), "20000 x 10000 = 200.0 million pixels"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "text, it begins '%!PS-Adobe"),
    "FITS": (b"SIMPLE  =                    T".ljust(2880), "a FITS image"),
}


_RAMP = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
_LOW = 0x4000 + _RAMP % 256
"""Values that 8 bits do not tell apart."""


def _tiff16(values: np.ndarray, order: str = "<", bits: int = 16, photometric: int = 1, bands: int = 1) -> bytes:
    height, width = values.shape[:2]
    if bits == 12:
        pairs = values.astype(int).reshape(-1, 2)
        rows = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
        strip = rows.astype(np.uint8).tobytes()
    else:
        strip = values.astype(f"{order}u2").tobytes()
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * bands), 259: (3, [1]), 262: (3, [photometric])}
    return tiff([strip], {**tags, 277: (3, [bands]), 278: (4, [height])}, order=order)


def _transparent(value: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in _LOW)
    return png(32, 24, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", value)))


def _sixteen(color: int, bands: int) -> bytes:
    return png(2, 1, 16, color, b"\0" + np.arange(2 * bands, dtype=">u2").tobytes())


_DEEP: dict[str, tuple[bytes, Any]] = {
    "16-bit PNG": (encode(Image.fromarray(_LOW), "PNG"), _LOW),
    "16-bit TIFF": (_tiff16(_LOW), _LOW),
    "16-bit TIFF, big-endian": (_tiff16(_LOW, ">"), _LOW),
    "16-bit TIFF, compressed": (encode(Image.fromarray(_LOW), "TIFF", compression="tiff_lzw"), _LOW),
    "16-bit TIFF, white is zero": (_tiff16(_LOW, photometric=0), 65535 - _LOW),
    "12-bit TIFF": (_tiff16(_RAMP, bits=12), (_RAMP.astype(int) * 65535 + 2047) // 4095),
    "one transparent value": (_transparent(0x4001), np.where(_LOW == 0x4001, 65535, _LOW)),
    "8-bit grey": (encode(Image.fromarray((_RAMP % 256).astype(np.uint8)), "PNG"), _RAMP % 256 * 257),
    "1 bit": (encode(Image.fromarray(_RAMP % 3 == 0), "PNG"), (_RAMP % 3 == 0) * 65535),
}
"""Grey files, and their values in 16 bits."""
_TOO_DEEP: dict[str, bytes] = {
    "16-bit RGB, PNG": _sixteen(2, 3),
    "16-bit grey and alpha, PNG": _sixteen(4, 2),
    "16-bit RGBA, PNG": _sixteen(6, 4),
    "16-bit RGB, TIFF": _tiff16(np.repeat(_LOW[..., None], 3, 2), photometric=2, bands=3),
}


class _One:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, index: int) -> bytes:
        return self.data


def _encoded(split: Split) -> Any:
    found = split.encoded(0)
    return found.whole() if isinstance(found, Encoded) else found


def _ways(data: bytes, folder: Path, planes: Planes = RGB) -> dict[str, Callable[[], Any]]:
    file = folder / "a" / "file.jpg"
    file.parent.mkdir()
    file.write_bytes(data)
    options: dict[str, Any] = {"formats": _FORMATS, "max_pixels": _MOST}
    common = ("train", ("a",), np.zeros(1, np.int64), Keys(["file.jpg"]))
    memory = Split(*common, _One(data), _FORMATS, _MOST, planes=planes)
    predicted = Split(*common, Local("/", Keys([str(file)])), _FORMATS, _MOST, planes=planes)
    (folder / "other.jpg").write_bytes(_JPEG)
    (folder / "list.csv").write_text("path,label,split\na/file.jpg,a,train\nother.jpg,b,train\n")
    listed = SourceConfig(name="manifest", path=str(folder / "list.csv"))
    depth: dict[str, Any] = {"channels": planes.channels, "bit_depth": planes.bits}
    source = DataConfig(source=listed, split=SplitConfig(train=1, val=0, test=0), **depth)
    trained = open_dataset(source).splits["train"]
    keeping = kept(memory, 1 << 30)
    ways = {"Pillow": lambda: decode(data, "file.jpg", **options), "pack": lambda: trained.image(0)}
    return {
        **(ways if planes == RGB else {}),
        "the fast decoder": lambda: decoded(data, "file.jpg", **options, planes=planes),
        "training": lambda: trained.pixels(0),
        "training, made smaller": lambda: _encoded(trained),
        "data.cache": lambda: keeping.pixels(0),
        "data.cache, again": lambda: keeping.pixels(0),
        "predict": lambda: predicted.pixels(0),
        "serve": lambda: memory.pixels(0),
    }


@pytest.mark.parametrize("name", _DECODED)
def test_files_that_are_decoded(name: str, tmp_path: Path) -> None:
    data, pixels = _DECODED[name]
    ways = _ways(data, tmp_path)
    first = np.asarray(ways["Pillow"]())
    for way, made in ways.items():
        assert np.array_equal(np.asarray(made()), first), way
    if pixels is not None:
        assert first.tolist() == np.asarray(pixels).tolist()
    else:  # palettes and JPEG change colours a little; the second image is red
        assert np.abs(first.astype(int) - _SMOOTH).mean() < 12


@pytest.mark.parametrize("name", _DECODED)
def test_grey_is_asked_of_any_file(name: str, tmp_path: Path) -> None:
    """What Pillow makes of the RGB; in 16 bits times 257, but for 16-bit grey."""
    data = _DECODED[name][0]
    level = np.asarray(decode(data, "x", formats=_FORMATS, max_pixels=_MOST).convert("L"))
    deep = _SIXTEEN if name == "16-bit grey" else level.astype(np.uint16) * 257
    for planes, expected in ((Planes(1), level), (Planes(1, 16), deep)):
        (tmp_path / str(planes.bits)).mkdir()
        for way, made in _ways(data, tmp_path / str(planes.bits), planes).items():
            np.testing.assert_array_equal(np.asarray(made()), expected, err_msg=way, strict=True)


@pytest.mark.parametrize("name", _DEEP)
def test_16_bits_are_asked_of_grey_files(name: str, tmp_path: Path) -> None:
    data, values = _DEEP[name]
    for way, made in _ways(data, tmp_path, Planes(1, 16)).items():
        np.testing.assert_array_equal(np.asarray(made()), np.asarray(values, np.uint16), err_msg=way, strict=True)


@pytest.mark.parametrize("name", _TOO_DEEP)
def test_low_bytes_are_not_lost_silently(name: str, tmp_path: Path) -> None:
    (tmp_path / "8").mkdir()
    for made in _ways(_TOO_DEEP[name], tmp_path / "8", Planes(1)).values():
        assert np.asarray(made()).dtype == np.uint8
    for way, made in _ways(_TOO_DEEP[name], tmp_path, Planes(1, 16)).items():
        with pytest.raises(BadImageError) as raised:
            made()
        assert "the low bytes would be lost" in raised.value.reason, way


@pytest.mark.parametrize("planes", [Planes(1), Planes(1, 16)], ids=str)
@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_refused_is_refused_as_grey(name: str, planes: Planes, tmp_path: Path) -> None:
    for way, made in _ways(_REFUSED[name][0], tmp_path, planes).items():
        with pytest.raises(BadImageError) as raised:
            made()
        assert _REFUSED[name][1] in raised.value.reason, way


@pytest.mark.parametrize("name", _REFUSED)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    data, words = _REFUSED[name]
    if "bomb" in name:
        assert len(data) < 12_000
    for way, made in _ways(data, tmp_path).items():
        with pytest.raises(BadImageError) as raised:
            made()
        assert words in raised.value.reason, way
        assert raised.value.size == len(data), way


def test_what_is_no_image_is_told_apart_from_what_cannot_be_read(tmp_path: Path) -> None:
    from raycls.errors import DataError

    reader = Local("/", Keys([str(tmp_path / "gone.jpg")]))
    split = Split("train", ("a",), np.zeros(1, np.int64), Keys(["gone.jpg"]), reader, _FORMATS, _MOST)
    with pytest.raises(DataError) as raised:
        split.pixels(0)
    assert not isinstance(raised.value, BadImageError)


def test_paths_that_lead_out_of_the_data_are_read(tmp_path: Path) -> None:
    """Through `..` of a manifest and through a link of a folder: both are what the user wrote."""
    outside, data = tmp_path / "outside", tmp_path / "data"
    for folder in (outside, data / "a", data / "b"):
        folder.mkdir(parents=True)
    for index in range(10):
        (outside / f"{index}.png").write_bytes(_PNG)
        for name in "ab":
            (data / name / f"{index}.png").symlink_to(outside / f"{index}.png")
    (data / "list.csv").write_text("path,label\n" + "".join(f"../outside/{i}.png,{'ab'[i % 2]}\n" for i in range(10)))
    folder = SourceConfig(path=str(data), args={"ignore": ["*.csv"]})
    for source in (folder, SourceConfig(name="manifest", path=str(data / "list.csv"))):
        found = open_dataset(DataConfig(source=source)).splits["train"]
        assert all(np.array_equal(np.asarray(found.pixels(row)), _SMOOTH) for row in range(len(found)))


def test_pickled_errors_keep_their_size() -> None:
    import pickle

    with pytest.raises(BadImageError) as raised:
        decode(b"GIF89a", "x", formats=_FORMATS, max_pixels=9)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), again.size, str(again)) == (BadImageError, 6, str(raised.value))
