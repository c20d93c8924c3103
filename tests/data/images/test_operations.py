"""Operations are torchvision's, drawn from the sample's own seed; a user's transform is as deterministic."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.plugins import user_module
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from raycls.data.images.operations import build
from raycls.data.order import key
from raycls.data.samples import UnfitError
from raycls.errors import ConfigError, DataError

PLUGIN = '''
import random
import numpy as np
import torch
from harness.plugins import user_module
from PIL import Image

def draws(low=0):
    """Writes what each of the three generators gives into the image."""
    def operation(image):
        pixels = np.array(image)
        pixels[0, 0] = [random.randrange(low, 256), np.random.randint(256), int(torch.randint(256, ()))]
        return pixels
    return operation

def threads():
    return lambda image: np.full((2, 2, 3), torch.get_num_threads(), np.uint8)

def turned(how):
    return {
        "pillow": lambda image: image.transpose(Image.Transpose.ROTATE_90),
        "array": lambda image: np.rot90(np.asarray(image)),
        "tensor": lambda image: torch.from_numpy(np.rot90(np.asarray(image)).copy()).permute(2, 0, 1),
    }[how]

def wrong(how):
    return {
        "grey": lambda image: image.convert("L"),
        "float": lambda image: np.asarray(image) / 255,
        "tensor": lambda image: torch.zeros(3, 4, 4),
        "channels": lambda image: np.zeros((4, 4, 4), np.uint8),
        "none": lambda image: None,
        "raises": lambda image: 1 / 0,
        "leaves": lambda image: exit(0),
    }[how]

def no_factory():
    return 7
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    with user_module(tmp_path, "transforms_of_test_augment", PLUGIN) as name:
        yield name


def _image(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _run(*operations: object, image_size: int = 16, sample: tuple[int, int, int] = (1, 2, 3)) -> np.ndarray:
    return build(operations, train=True, image_size=image_size)(_image(), sample)  # type: ignore[arg-type]


BILINEAR = InterpolationMode.BILINEAR


@pytest.mark.parametrize(
    ("operation", "oracle"),
    [
        ("resize", v2.Resize(16)),
        ({"resize": {"size": [10, 12]}}, v2.Resize([10, 12])),
        ({"resize": {"size": 90, "interpolation": "bicubic"}}, v2.Resize(90, InterpolationMode.BICUBIC)),
        ("center_crop", v2.CenterCrop(16)),
        ({"center_crop": {"size": [50, 9]}}, v2.CenterCrop([50, 9])),
        ("random_crop", v2.RandomCrop(16)),
        (
            {"random_crop": {"size": [44, 20], "padding": 4, "padding_mode": "reflect"}},
            v2.RandomCrop([44, 20], padding=4, padding_mode="reflect"),
        ),
        (
            {"random_crop": {"size": 64, "padding": [12, 30], "fill": [9, 8, 7]}},
            v2.RandomCrop(64, padding=[12, 30], fill=[9, 8, 7]),
        ),
        ("random_resized_crop", v2.RandomResizedCrop(16)),
        (
            {"random_resized_crop": {"size": 20, "scale": [0.5, 1], "ratio": [1, 2]}},
            v2.RandomResizedCrop(20, scale=(0.5, 1.0), ratio=(1.0, 2.0)),
        ),
        ("horizontal_flip", v2.RandomHorizontalFlip(0.5)),
        ({"vertical_flip": {"p": 0.9}}, v2.RandomVerticalFlip(0.9)),
        ({"rotation": {"degrees": 30, "fill": 255}}, v2.RandomRotation(30, BILINEAR, fill=255)),
        ({"rotation": {"degrees": [10, 20]}}, v2.RandomRotation([10, 20], BILINEAR)),
        (
            {"color_jitter": {"brightness": 0.4, "contrast": [0.5, 1.5], "saturation": 0.3, "hue": 0.1}},
            v2.ColorJitter(0.4, [0.5, 1.5], 0.3, 0.1),
        ),
    ],
)
def test_operations_are_torchvisions_from_the_samples_seed(operation: object, oracle: v2.Transform) -> None:
    for sample in range(4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(1, 2, sample))
            expected = np.asarray(oracle(_image()))
        result = _run(operation, sample=(1, 2, sample))
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)


def test_defaults() -> None:
    image = _image(90, 120)
    evaluate = build(None, train=False, image_size=28)
    # 28 * 8 / 7 = 32 for the shorter side: 32 x 42.67, then the middle 28 x 28
    expected = np.asarray(v2.CenterCrop(28)(v2.Resize(32)(image)))
    np.testing.assert_array_equal(evaluate(image, (0, 0, 0)), expected)
    train = build(None, train=True, image_size=28)
    explicit = build(("random_resized_crop", "horizontal_flip"), train=True, image_size=28)
    np.testing.assert_array_equal(train(image, (0, 0, 5)), explicit(image, (0, 0, 5)))
    assert build((), train=True, image_size=28)(image, (0, 0, 0)).shape == (90, 120, 3)


def test_seed_epoch_and_sample_each_count() -> None:
    keys = [(1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0)]
    assert len({_run("random_resized_crop", sample=sample).tobytes() for sample in keys}) == 4


def test_neither_order_nor_what_was_drawn_before_matters() -> None:
    augment = build(None, train=True, image_size=16)
    first = [augment(_image(), (0, 0, sample)).tobytes() for sample in range(6)]
    torch.manual_seed(99)
    again = [augment(_image(), (0, 0, sample)).tobytes() for sample in reversed(range(6))]
    assert first == again[::-1]
    assert len(set(first)) == 6


def _states() -> tuple[object, ...]:
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2:], random.getstate()


@pytest.mark.parametrize("which", ["own", "users"])
def test_the_generators_are_left_as_they_were(plugin: str, which: str) -> None:
    operations = (
        ("random_resized_crop",) if which == "own" else (f"{plugin}:draws", {f"{plugin}:wrong": {"how": "raises"}})
    )
    augment = build(operations, train=True, image_size=16)
    torch.randn(3)
    np.random.randn(3)
    before = _states()
    if which == "own":
        augment(_image(), (0, 0, 0))
    else:
        with pytest.raises(DataError):
            augment(_image(), (0, 0, 0))
    assert _states() == before


def test_a_users_transform_draws_the_same_from_any_generator(plugin: str) -> None:
    augment = build((f"{plugin}:draws",), train=True, image_size=16)
    values = []
    for sample in (0, 1, 0):
        random.seed()
        np.random.seed(None)
        torch.seed()
        values.append(augment(_image(), (5, 1, sample))[0, 0].tolist())
    assert values[0] == values[2]
    assert all(a != b for a, b in zip(values[0], values[1], strict=True))


def test_a_users_transform_runs_with_one_thread(plugin: str) -> None:
    augment = build((f"{plugin}:threads",), train=True, image_size=16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert augment(_image(), (0, 0, 0))[0, 0, 0] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("how", ["pillow", "array", "tensor"])
def test_what_a_users_transform_may_return(plugin: str, how: str) -> None:
    turned = {f"{plugin}:turned": {"how": how}}
    np.testing.assert_array_equal(_run(turned), np.rot90(np.asarray(_image())))
    expected = np.asarray(v2.CenterCrop(16)(Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(_image()))))))
    np.testing.assert_array_equal(_run(turned, "center_crop"), expected)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("grey", "mode L"),
        ("float", "array float64"),
        ("tensor", "tensor torch.float32"),
        ("channels", r"\[4, 4, 4\]"),
        ("none", "NoneType"),
        ("raises", "ZeroDivisionError"),
        ("leaves", "SystemExit"),
    ],
)
def test_what_it_may_not(plugin: str, how: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        _run({f"{plugin}:wrong": {"how": how}})
    assert f"{plugin}:wrong" in caught.value.what


def test_an_augmentation_pickles_as_its_config(plugin: str) -> None:
    augment = build((f"{plugin}:draws", {"random_crop": {"padding": 3}}), train=True, image_size=16)
    copy = pickle.loads(pickle.dumps(augment))
    np.testing.assert_array_equal(copy(_image(), (1, 1, 1)), augment(_image(), (1, 1, 1)))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("random_resize_crop", "random_resized_crop"),
        ({"rotation": {}}, "degrees"),
        ({"rotation": {"degree": 3}}, "degrees"),
        ({"resize": {"image_size": 3}}, "image_size"),
        ({"resize": {"size": 0}}, "number of pixels"),
        ({"resize": {"size": [1, 2, 3]}}, "number of pixels"),
        ({"resize": {"size": "big"}}, "number of pixels"),
        ({"horizontal_flip": {"p": 1.5}}, "horizontal_flip"),
        ({"random_resized_crop": {"scale": [1, 0.5]}}, "scale must"),
        ({"random_resized_crop": {"scale": [0.5, 1.5]}}, "scale must"),
        ({"random_resized_crop": {"ratio": 2}}, "two numbers"),
        ({"random_crop": {"padding_mode": "mirror"}}, "padding_mode"),
        ({"random_crop": {"padding": [1, 2, 3]}}, "random_crop"),
        ({"random_crop": {"padding": "x"}}, "random_crop"),
        ({"random_crop": {"fill": 256}}, "0 to 255"),
        ({"rotation": {"degrees": -3}}, "rotation"),
        ({"color_jitter": {"hue": 0.9}}, "color_jitter"),
        ({"color_jitter": {"brightness": "much"}}, "color_jitter"),
        ({"resize": {}, "center_crop": {}}, "one name"),
        ({}, "one name"),
        ("os:system", "os:system"),
        ("PLUGIN:no_factory", "did not return an operation"),
        ({"PLUGIN:draws": {"lo": 1}}, "low"),
    ],
)
def test_problems_are_found_before_anything_runs(plugin: str, operation: object, message: str) -> None:
    if isinstance(operation, dict):
        operation = {name.replace("PLUGIN", plugin): args for name, args in operation.items()}
    else:
        operation = str(operation).replace("PLUGIN", plugin)
    with pytest.raises(ConfigError, match=message) as caught:
        build(("resize", operation), train=False, image_size=16)  # type: ignore[arg-type]
    assert "augment.eval[1]" in str(caught.value)


def test_an_image_too_small_for_a_crop() -> None:
    what = re.compile(r"random_crop \(augment\.train\[0\]\).* 40 x 60")
    with raised(UnfitError, what=what, found=re.compile("ValueError"), fix=re.compile("resize")):
        _run({"random_crop": {"size": 50}})


LIMIT = 2000  # and no operation makes more than twice as many


@pytest.mark.parametrize(
    ("operation", "height", "width", "pixels"),
    [
        ({"resize": {"size": 16}}, 1, 400, 16 * 6400),
        ({"resize": {"size": 16}}, 400, 1, 16 * 6400),
        ({"resize": {"size": [16, 16]}}, 1000, 1, 16 * 1000),  # made 16 wide first
        ({"resize": {"size": [80, 80]}}, 10, 10, 80 * 80),
        ({"center_crop": {"size": 30}}, 1000, 1, 1000 * 30),
        ({"random_crop": {"size": 16, "padding": 20}}, 1, 400, 41 * 440),
        ({"random_resized_crop": {"size": 90}}, 10, 10, 90 * 90),
        ({"random_resized_crop": {"size": 16, "ratio": [0.001, 1.0]}}, 1000, 1, 16 * 1000),
    ],
)
def test_no_operation_makes_a_huge_image(operation: object, height: int, width: int, pixels: int) -> None:
    augment = build((operation,), train=True, image_size=16, max_pixels=LIMIT)  # type: ignore[arg-type]
    image = Image.new("RGB", (width, height))
    with pytest.raises(DataError, match=r"augment\.train\[0\]") as caught:
        augment(image, (0, 0, 0))
    assert f"{height} x {width}" in (caught.value.found or "")
    assert f"{pixels / 1e6:,.1f} million" in (caught.value.found or "")
    assert "data.max_pixels" in (caught.value.valid or "")
    assert caught.value.where is None  # whoever read it knows the file
    larger = build((operation,), train=True, image_size=16, max_pixels=(pixels + 1) // 2)  # type: ignore[arg-type]
    assert larger(image, (0, 0, 0)).size


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (3, 7)])
def test_the_smallest_images(height: int, width: int) -> None:
    image = Image.new("RGB", (width, height), (9, 8, 7))
    for train in (True, False):
        pixels = build(None, train=train, image_size=16)(image, (0, 0, 0))
        assert pixels.shape == (16, 16, 3)
        assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() in ([[9, 8, 7]], [[0, 0, 0], [9, 8, 7]])
