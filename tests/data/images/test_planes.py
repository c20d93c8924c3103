"""Operations on grey images of 8 and 16 bits, and what a source or a plug-in may hand over."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.plugins import user_module
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from raycls.data.images.operations import build
from raycls.data.images.planes import RGB, Planes, for_people, held

_DRAW = np.random.default_rng(3)
_DEEP = _DRAW.integers(0, 65536, (40, 30)).astype(np.uint16)
_GREY = (_DEEP >> 8).astype(np.uint8)
_KEY = (1, 0, 7)
_MOVING: tuple[Any, ...] = (
    "resize",
    {"resize": {"size": 50, "fit": "pad"}},
    {"resize": {"size": 17, "fit": "crop", "interpolation": "bicubic"}},
    "center_crop",
    {"center_crop": {"size": 48}},
    {"random_crop": {"size": 36, "padding": 8}},
    {"random_crop": {"size": 20, "padding": 3, "padding_mode": "reflect"}},
    "random_resized_crop",
    "horizontal_flip",
    "vertical_flip",
    {"rotation": {"degrees": 40}},
    {"affine": {"degrees": 20, "translate": (0.1, 0.2), "scale": (0.7, 1.2), "shear": 8}},
    {"perspective": {"p": 1.0}},
    {"random_choice": {"operations": ("horizontal_flip", {"rotation": {"degrees": 9}})}},
)


def _made(operation: Any, image: np.ndarray, planes: Planes) -> np.ndarray:
    return build((operation,), train=True, image_size=24, planes=planes)(image, _KEY)


@pytest.mark.parametrize("operation", [*_MOVING, "equalize", {"gaussian_blur": {"p": 1.0}}, "rand_augment"], ids=str)
def test_grey_is_what_a_channel_of_it_is_as_rgb(operation: Any) -> None:
    repeated = np.repeat(_GREY[..., None], 3, 2)
    found = _made(operation, _GREY, Planes(1))
    np.testing.assert_array_equal(found, _made(operation, repeated, RGB)[..., :1], strict=True)


@pytest.mark.parametrize("operation", _MOVING, ids=str)
def test_16_bits_are_moved_as_8_are(operation: Any) -> None:
    """The same draws: 8 bits times 257 differ by what 8 bits round, which Pillow does after each of two passes."""
    found = _made(operation, _GREY.astype(np.uint16) * 257, Planes(1, 16))
    expected = _made(operation, _GREY, Planes(1))
    assert (found.dtype, found.shape) == (np.dtype(np.uint16), expected.shape)
    assert np.abs(found / 257 - expected).max() < 1.1
    assert len(np.unique(_made(operation, _DEEP, Planes(1, 16)) % 257)) > 50  # the low bytes are there


@pytest.mark.parametrize(
    ("operation", "oracle"),
    [
        ({"rotation": {"degrees": 40}}, v2.RandomRotation(40, InterpolationMode.BILINEAR)),
        ("random_resized_crop", v2.RandomResizedCrop(24, antialias=True)),
        (
            {"resize": {"size": 50, "interpolation": "bicubic"}},
            v2.Resize(50, InterpolationMode.BICUBIC, antialias=True),
        ),
    ],
    ids=str,
)
def test_16_bits_are_those_of_torchvision_on_floats(operation: Any, oracle: v2.Transform) -> None:
    from raycls.data.order import key
    from raycls.randomness import seeded

    with seeded(key(*_KEY)):
        floats = np.asarray(oracle(Image.fromarray(_DEEP.astype(np.float32))))
    expected = np.clip(np.rint(floats), 0, 65535).astype(np.uint16)
    np.testing.assert_array_equal(_made(operation, _DEEP, Planes(1, 16)), expected[..., None], strict=True)


def test_an_augmentation_travels_with_its_planes() -> None:
    augment = build(("random_resized_crop", "horizontal_flip"), train=True, image_size=16, planes=Planes(1, 16))
    again = pickle.loads(pickle.dumps(augment))
    np.testing.assert_array_equal(again(_DEEP, _KEY), augment(_DEEP, _KEY), strict=True)
    stages = augment.stages(_DEEP, _KEY)
    assert all((stage.pixels.dtype, stage.pixels.shape[2]) == (np.dtype(np.uint8), 3) for stage in stages)
    assert np.array_equal(stages[-1].pixels, for_people(augment(_DEEP, _KEY)))


_PLUGIN = """
import numpy as np
import torch
from PIL import Image


def turned(how):
    def operation(image):
        values = np.asarray(image)
        assert values.ndim == 2
        assert isinstance(image, Image.Image) == (values.dtype == np.uint8)
        values = np.ascontiguousarray(np.rot90(values))
        forms = {"array": values, "channel": values[..., None], "tensor": torch.from_numpy(values)[None]}
        return forms.get(how, Image.fromarray(values))

    return operation


def rgb():
    return lambda image: np.zeros((9, 9, 3), np.uint8)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    """One that checks what it is given, and returns it in one of several forms."""
    with user_module(tmp_path, "turning_of_test_planes", _PLUGIN) as name:
        yield name


@pytest.mark.parametrize("how", ["array", "channel", "tensor", "pillow"])
@pytest.mark.parametrize(("image", "planes"), [(_GREY, Planes(1)), (_DEEP, Planes(1, 16))], ids=["8", "16"])
def test_a_plug_in_gets_and_returns_what_there_is(how: str, image: np.ndarray, planes: Planes, plugin: str) -> None:
    found = build(({f"{plugin}:turned": {"how": how}}, "center_crop"), train=False, image_size=24, planes=planes)
    expected = build(("center_crop",), train=False, image_size=24, planes=planes)(np.rot90(image), _KEY)
    np.testing.assert_array_equal(found(image, _KEY), expected, strict=True)


def test_a_plug_in_that_makes_rgb_is_refused(plugin: str) -> None:
    from raycls.errors import DataError

    with pytest.raises(DataError, match="did not return a 16-bit grey image") as raised:
        build((f"{plugin}:rgb",), train=True, image_size=9, planes=Planes(1, 16))(_DEEP, _KEY)
    assert "array [H, W] uint16" in (raised.value.valid or "")


@pytest.mark.parametrize(
    ("array", "planes", "expected"),
    [
        (_GREY, Planes(1), _GREY),
        (_GREY[..., None], Planes(1), _GREY),
        (np.repeat(_GREY[..., None], 3, 2), Planes(1), _GREY),
        (_GREY, Planes(1, 16), _GREY.astype(np.uint16) * 257),
        (_DEEP, Planes(1, 16), _DEEP),
        (_DEEP[..., None], Planes(1, 16), _DEEP),
        (_GREY, RGB, np.repeat(_GREY[..., None], 3, 2)),
        (_DEEP, RGB, None),
        (_DEEP, Planes(1), None),
        (np.repeat(_DEEP[..., None], 3, 2), Planes(1, 16), None),
        (np.zeros((0, 4), np.uint8), Planes(1), None),
        (np.zeros((4, 4, 4), np.uint8), Planes(1), None),
    ],
)
def test_arrays_of_a_source(array: np.ndarray, planes: Planes, expected: np.ndarray | None) -> None:
    found = held(array, planes)
    if expected is None or found is None:
        assert found is expected
    else:
        np.testing.assert_array_equal(found, expected, strict=True)
