"""Images of other channels than grey and RGB: arrays of numpy in files, RGBA, and operations on all channels alike."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.images import encode
from harness.plugins import user_module
from PIL import Image

from raycls.data.images.decoding.decode import decoded
from raycls.data.images.decoding.npy import header_of
from raycls.data.images.operations import build
from raycls.data.images.planes import RGB, Planes, for_people
from raycls.data.making.bad import BadImageError
from raycls.errors import DataError

_DRAW = np.random.default_rng(5)
_EIGHT = _DRAW.integers(0, 256, (40, 30, 5)).astype(np.uint8)
_SIXTEEN = _DRAW.integers(0, 65536, (40, 30, 5)).astype(np.uint16)
_RGBA = np.ascontiguousarray(_EIGHT[..., :4])
_KEY = (1, 0, 7)
_MOVING: tuple[Any, ...] = (
    "resize",
    {"resize": {"size": 50, "fit": "pad", "fill": 9}},
    {"resize": {"size": 17, "fit": "crop", "interpolation": "bicubic"}},
    {"center_crop": {"size": 48}},
    {"random_crop": {"size": 36, "padding": 8, "fill": 7}},
    {"random_crop": {"size": 20, "padding": 3, "padding_mode": "reflect"}},
    "random_resized_crop",
    "horizontal_flip",
    {"rotation": {"degrees": 40}},
    {"affine": {"degrees": 20, "translate": (0.1, 0.2), "scale": (0.7, 1.2), "shear": 8}},
    {"perspective": {"p": 1.0}},
)


def _npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def _decoded(
    data: bytes, planes: Planes, *, formats: tuple[str, ...] = ("npy", "png", "tiff"), most: int = 10**5
) -> Any:
    return decoded(data, "x", formats=formats, max_pixels=most, planes=planes)


@pytest.mark.parametrize(
    ("data", "planes", "expected"),
    [
        (_npy(_EIGHT), Planes(5), _EIGHT),
        (_npy(_SIXTEEN), Planes(5, 16), _SIXTEEN),
        (_npy(_SIXTEEN.astype(">u2")), Planes(5, 16), _SIXTEEN),
        (_npy(np.asfortranarray(_SIXTEEN)), Planes(5, 16), _SIXTEEN),
        (_npy(_SIXTEEN, version=(2, 0)), Planes(5, 16), _SIXTEEN),
        (_npy(_EIGHT), Planes(5, 16), _EIGHT.astype(np.uint16) * 257),
        (_npy(_SIXTEEN[..., 0]), Planes(1, 16), _SIXTEEN[..., 0]),
        (_npy(_EIGHT[..., :3]), RGB, _EIGHT[..., :3]),
        (encode(Image.fromarray(_RGBA), "PNG"), Planes(4), _RGBA),
        (encode(Image.fromarray(_RGBA), "TIFF"), Planes(4, 16), _RGBA.astype(np.uint16) * 257),
    ],
)
def test_channels_are_those_of_the_file(data: bytes, planes: Planes, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(_decoded(data, planes)), expected, strict=True)


@pytest.mark.parametrize(
    ("data", "planes", "words"),
    [
        (_npy(_SIXTEEN), Planes(5), "uint16 of shape [40, 30, 5], and not uint8 [H, W, 5]"),
        (_npy(_EIGHT), Planes(4), "uint8 of shape [40, 30, 5], and not uint8 [H, W, 4]"),
        (_npy(_EIGHT.transpose(2, 0, 1)), Planes(5), "channels come last, numpy.moveaxis(array, 0, 2)"),
        (_npy(_EIGHT.astype(np.float32)), Planes(5), "float32 of shape"),
        (_npy(_EIGHT[0, 0]), Planes(5), "uint8 of shape [5]"),
        (_npy(np.zeros((0, 4, 5), np.uint8)), Planes(5), "shape [0, 4, 5]"),
        (_npy(_EIGHT)[:-1], Planes(5), "has 6,000 bytes, and there are 5,999"),
        (_npy(_EIGHT) + b"x", Planes(5), "has 6,000 bytes, and there are 6,001"),
        (_npy(_EIGHT)[:20], Planes(5), "an array that is not an 8-bit image of 5 channels"),
        (_npy(np.array([[{}]], object)), Planes(5), "object of shape [1, 1]"),
        (b"\x93NUMPY\x07\x00", Planes(5), "an array that is not an 8-bit image"),
        (_npy(np.zeros((1000, 200, 5), np.uint8)), Planes(5), "200 x 1000 = 0.2 million pixels"),
        (encode(Image.fromarray(_EIGHT[..., :3]), "PNG"), Planes(4), "an image of 3 channels (RGB), not of 4"),
        (encode(Image.fromarray(_EIGHT[..., :3]), "JPEG"), Planes(5), "an image of 3 channels (RGB), not of 5"),
        (encode(Image.fromarray(_EIGHT[..., 0]), "PNG"), Planes(2), "an image of 1 channel (L), not of 2"),
        (encode(Image.fromarray(_SIXTEEN[..., 0]), "PNG"), Planes(4, 16), "an image of 1 channel (I;16), not of 4"),
        (_npy(_EIGHT).replace(b"(40, 30, 5)", b"(40, 30, 5("), Planes(5), "an array that is not"),
        (_npy(_EIGHT).replace(b"(40, 30, 5)", b"(-4, 30,-5)"), Planes(5), "an array that is not"),
    ],
)
def test_what_has_other_channels_is_a_bad_image(data: bytes, planes: Planes, words: str) -> None:
    with pytest.raises(BadImageError) as raised:
        _decoded(data, planes, formats=("npy", "png", "jpeg"))
    assert words in f"{raised.value.reason}"
    assert raised.value.size == len(data)


def test_arrays_are_read_where_the_config_says_so() -> None:
    with pytest.raises(BadImageError) as raised:
        _decoded(_npy(_EIGHT), Planes(5), formats=("png",))
    assert raised.value.reason == "a sample is an image format that is not allowed: this is npy"


@pytest.mark.parametrize("operation", _MOVING, ids=str)
@pytest.mark.parametrize(("image", "bits"), [(_EIGHT, 8), (_SIXTEEN, 16)], ids=["8", "16"])
def test_all_channels_are_moved_alike(operation: Any, image: np.ndarray, bits: int) -> None:
    """Each is what an image of it alone becomes."""
    if bits == 16 and isinstance(operation, dict):
        operation = {name: {k: v for k, v in args.items() if k != "fill"} for name, args in operation.items()}
    whole = build((operation,), train=True, image_size=24, planes=Planes(5, bits))(image, _KEY)
    alone = build((operation,), train=True, image_size=24, planes=Planes(1, bits))
    expected = np.concatenate([alone(image[..., channel], _KEY) for channel in range(5)], 2)
    np.testing.assert_array_equal(whole, expected, strict=True)


def test_alpha_is_a_channel_like_others() -> None:
    """Pillow would weigh colours by it in a resize."""
    small = build(({"resize": {"size": 9}},), train=False, image_size=9, planes=Planes(4))(_RGBA, _KEY)
    assert not np.array_equal(small, np.asarray(Image.fromarray(_RGBA).resize((9, 12), Image.Resampling.BILINEAR)))
    for channel in range(4):
        plane = Image.fromarray(np.ascontiguousarray(_RGBA[..., channel])).resize((9, 12), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(small[..., channel], np.asarray(plane))


_PLUGIN = """
import numpy as np


def turned():
    return lambda image: np.rot90(image)


def last_dropped():
    return lambda image: image[..., :-1]
"""


def test_a_plug_in_gets_an_array(tmp_path: Path) -> None:
    with user_module(tmp_path, "turning_of_test_channels", _PLUGIN) as name:
        augment = build((f"{name}:turned",), train=False, image_size=9, planes=Planes(5, 16))
        np.testing.assert_array_equal(augment(_SIXTEEN, _KEY), np.rot90(_SIXTEEN), strict=True)
        with pytest.raises(DataError, match="did not return a 16-bit image of 5 channels") as raised:
            build((f"{name}:last_dropped",), train=False, image_size=9, planes=Planes(5, 16))(_SIXTEEN, _KEY)
    assert raised.value.valid == "an array [H, W, 5] uint16, or a tensor [5, H, W] uint16"


def test_people_are_shown_the_first_three() -> None:
    assert np.array_equal(for_people(_EIGHT), _EIGHT[..., :3])
    assert np.array_equal(for_people(_EIGHT[..., :2]), np.repeat(_EIGHT[..., :1], 3, 2))
    assert np.array_equal(for_people(_SIXTEEN), np.rint(_SIXTEEN[..., :3] / 257))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2", "<f4", "|b1"])
def test_headers_are_read_as_numpy_reads_them(kind: str, version: tuple[int, int], order: Any) -> None:
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    for shape in ((), (3,), (3, 4), (3, 4, 5), (0, 4)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.zeros(shape, kind, order), version)
        stream.seek(6 + 2)
        assert header_of(stream.getvalue()) == (*read(stream), stream.tell())


def test_headers_are_read_without_the_parser_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of Python 3.11 may fail where threads ask at once, and a whole image would count as a bad one."""
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 4, 5), np.uint16))
    monkeypatch.delattr(ast, "parse")
    assert header_of(stream.getvalue())[0] == (3, 4, 5)
