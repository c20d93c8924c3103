"""Each operation is torchvision's on Pillow images from the sample's seed, or does what is worked out here."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2
from torchvision.transforms.v2 import functional

from raycls.config.errors import Place
from raycls.config.load import load_text
from raycls.config.names.builtin import NESTED, OPERATIONS
from raycls.data.images.geometry import Fit
from raycls.data.images.largest import largest
from raycls.data.images.operations import build
from raycls.data.order import key
from raycls.data.samples import UnfitError
from raycls.errors import ConfigError
from raycls.names import name_problems

_LINEAR = InterpolationMode.BILINEAR
_FLIP, _GREY = {"horizontal_flip": {"p": 1.0}}, {"grayscale": {"p": 1.0}}
_EITHER = {"random_choice": {"operations": [_GREY, _FLIP]}}

_ORACLES: list[tuple[Any, Callable[[Any], Any]]] = [
    ("auto_augment", v2.AutoAugment()),
    (
        {"auto_augment": {"policy": "cifar10", "fill": [9, 8, 7]}},
        v2.AutoAugment(AutoAugmentPolicy.CIFAR10, fill=[9, 8, 7]),
    ),
    ({"auto_augment": {"policy": "svhn"}}, v2.AutoAugment(AutoAugmentPolicy.SVHN)),
    ("rand_augment", v2.RandAugment()),
    (
        {"rand_augment": {"num_ops": 3, "magnitude": 20, "interpolation": "bilinear"}},
        v2.RandAugment(3, 20, interpolation=_LINEAR),
    ),
    ("trivial_augment_wide", v2.TrivialAugmentWide()),
    ("aug_mix", v2.AugMix()),
    (
        {"aug_mix": {"severity": 9, "mixture_width": 2, "chain_depth": 2, "alpha": 0.5, "all_ops": False, "fill": 5}},
        v2.AugMix(9, 2, 2, 0.5, False, fill=5),
    ),
    ({"gaussian_blur": {"kernel_size": 5, "p": 1.0}}, v2.RandomApply([v2.GaussianBlur(5)], 1.0)),
    ("gaussian_blur", v2.RandomApply([v2.GaussianBlur(5, (0.1, 2.0))])),  # a tenth of 40, rounded to odd
    ({"grayscale": {"p": 0.5}}, v2.RandomGrayscale(0.5)),
    ({"solarize": {"threshold": 100}}, v2.RandomSolarize(100)),
    ({"posterize": {"bits": 2}}, v2.RandomPosterize(2)),
    ("equalize", v2.RandomEqualize()),
    ({"sharpness": {"factor": 3.0}}, v2.RandomAdjustSharpness(3.0)),
    ("perspective", v2.RandomPerspective()),
    ({"perspective": {"distortion_scale": 0.9, "p": 1.0, "fill": 7}}, v2.RandomPerspective(0.9, 1.0, fill=7)),
    (
        {"affine": {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 9, "fill": 3}},
        v2.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), 9, _LINEAR, 3),
    ),
    (
        {"random_choice": {"operations": [_FLIP, "equalize", {"rotation": {"degrees": 9}}], "p": [1, 2, 1]}},
        v2.RandomChoice([v2.RandomHorizontalFlip(1.0), v2.RandomEqualize(), v2.RandomRotation(9, _LINEAR)], [1, 2, 1]),
    ),
    (
        {"random_order": {"operations": [{"rotation": {"degrees": 90}}, {"solarize": {"p": 0.7}}, "perspective"]}},
        v2.RandomOrder([v2.RandomRotation(90, _LINEAR), v2.RandomSolarize(128, 0.7), v2.RandomPerspective()]),
    ),
    (
        {"random_apply": {"p": 0.6, "operations": ["vertical_flip", _EITHER]}},
        v2.RandomApply(
            [v2.RandomVerticalFlip(), v2.RandomChoice([v2.RandomGrayscale(1.0), v2.RandomHorizontalFlip(1.0)])], 0.6
        ),
    ),
]  # fmt: skip


def _image(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _made(operation: Any, sample: int = 0, image: Image.Image | None = None, image_size: int = 40) -> np.ndarray:
    return build((operation,), train=True, image_size=image_size)(image or _image(), (1, 2, sample))


def _named(operation: Any) -> str:
    return operation if isinstance(operation, str) else next(iter(operation))


@pytest.mark.parametrize(("operation", "oracle"), _ORACLES, ids=lambda value: str(value)[:30])
def test_it_is_torchvisions_on_pillow_images(operation: Any, oracle: Callable[[Any], Any]) -> None:
    changed = 0
    for sample in range(8):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(1, 2, sample))
            expected = np.asarray(oracle(_image()))
        made = _made(operation, sample)
        np.testing.assert_array_equal(made, expected)
        changed += not np.array_equal(made, np.asarray(_image()))
    assert changed > 1, "nothing happens"


def test_every_operation_is_in_a_table() -> None:
    old = {"resize", "center_crop", "random_crop", "random_resized_crop", "horizontal_flip", "vertical_flip"}
    by_hand = {"hsv", "rotation", "color_jitter"}
    assert {_named(operation) for operation, _ in _ORACLES} | old | by_hand == set(OPERATIONS)


_CERTAIN = {"hsv", "gaussian_blur", "grayscale", "solarize", "posterize", "equalize", "sharpness", "perspective"}


@pytest.mark.parametrize("name", sorted(_CERTAIN | {"random_apply"}))
def test_with_probability_0_nothing_changes_and_with_1_always(name: str) -> None:
    more = {"operations": [_GREY]} if name in NESTED else {}
    for sample in range(5):
        np.testing.assert_array_equal(_made({name: {"p": 0, **more}}, sample), np.asarray(_image()))
        assert not np.array_equal(_made({name: {"p": 1.0, **more}}, sample), np.asarray(_image()))


@pytest.mark.parametrize(
    "identity",
    [
        {"hsv": {"hue": 0, "saturation": 0, "value": 0}},
        {"affine": {"degrees": 0}},
        {"sharpness": {"factor": 1.0, "p": 1.0}},
        {"posterize": {"bits": 8, "p": 1.0}},
        {"solarize": {"threshold": 256, "p": 1.0}},
        {"rand_augment": {"magnitude": 0, "num_ops": 1, "num_magnitude_bins": 31}},
    ],
    ids=_named,
)
def test_of_no_strength_nothing_changes(identity: Any) -> None:
    # RandAugment's equalize and auto-contrast know no strength, its posterize keeps 8 bits: images that they leave
    flat = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(16, 0))
    for sample in range(12):
        made = _made(identity, sample, flat)
        if _named(identity) == "rand_augment":
            assert np.abs(made.astype(int) - np.asarray(flat)).max() <= 1
        else:
            np.testing.assert_array_equal(made, np.asarray(flat))


def test_hsv_moves_hue_saturation_and_value() -> None:
    """Pure red in HSV is (0, 255, 255). What is drawn: three numbers from -1 to 1, after that of `p`."""
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    for sample in range(6):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(1, 2, sample))
            torch.rand(1)
            drawn = torch.empty(3).uniform_(-1, 1).tolist()
        levels = [round(255 * most * part) for most, part in zip((0.1, 0.4, 0.5), drawn, strict=True)]
        moved = (levels[0] % 256, min(255, 255 + levels[1]), min(255, 255 + levels[2]))
        expected = Image.new("HSV", (2, 2), moved).convert("RGB")
        made = _made({"hsv": {"hue": 0.1, "saturation": 0.4, "value": 0.5}}, sample, red)
        np.testing.assert_array_equal(made, np.asarray(expected))


_SIZES = [(40, 60), (60, 40), (33, 33), (7, 300), (300, 7), (1, 1), (24, 20)]


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("wanted", [24, [24, 20], [5, 64]])
def test_an_image_is_fitted_into_exactly_the_size(size: tuple[int, int], wanted: int | list[int]) -> None:
    tall, wide = (wanted, wanted) if isinstance(wanted, int) else wanted
    image = _image(*size)
    made = {fit: _made({"resize": {"size": wanted, "fit": fit}}, 0, image) for fit in ("crop", "pad", "stretch")}
    assert {each.shape for each in made.values()} == {(tall, wide, 3)}
    np.testing.assert_array_equal(made["stretch"], np.asarray(functional.resize(image, [tall, wide])))
    if isinstance(wanted, int):
        np.testing.assert_array_equal(made["crop"], np.asarray(v2.CenterCrop(24)(v2.Resize(24)(image))))
    scale = min(tall / size[0], wide / size[1])
    height, width = max(1, int(size[0] * scale + 1e-9)), max(1, int(size[1] * scale + 1e-9))
    top, left = (tall - height) // 2, (wide - width) // 2
    expected = np.full((tall, wide, 3), 77, np.uint8)
    expected[top : top + height, left : left + width] = np.asarray(functional.resize(image, [height, width]))
    np.testing.assert_array_equal(_made({"resize": {"size": wanted, "fit": "pad", "fill": 77}}, 0, image), expected)


def test_what_crop_cuts_off_is_the_same_on_both_sides() -> None:
    """An image of 100 x 40 in a window of 20 x 40 keeps its width and the middle 20 rows of 100."""
    rows = Image.fromarray(np.repeat(np.arange(100, dtype=np.uint8)[:, None, None], 40, 1).repeat(3, 2))
    made = _made({"resize": {"size": [20, 40], "fit": "crop"}}, 0, rows)
    assert made[:, 0, 0].tolist() == list(range(40, 60))


@pytest.mark.parametrize(
    ("operation", "fragment"),
    [
        ({"auto_augment": {"policy": "mnist"}}, "imagenet, cifar10, svhn"),
        ({"rand_augment": {"magnitude": 31}}, "magnitude must be an integer from 0 to 30"),
        ({"rand_augment": {"num_ops": 2.0}}, "num_ops must be an integer"),
        ({"trivial_augment_wide": {"interpolation": "lanczos"}}, "nearest, bilinear or bicubic"),
        ({"aug_mix": {"severity": 0}}, "severity must be an integer from 1 to 10"),
        ({"aug_mix": {"alpha": 0}}, "alpha must be greater than 0"),
        ({"aug_mix": {"chain_depth": 0}}, "chain_depth must be"),
        ({"hsv": {"hue": 0.7}}, "hue must be a number from 0 to 0.5"),
        ({"gaussian_blur": {"kernel_size": 4}}, "kernel_size must be odd"),
        ({"gaussian_blur": {"sigma": [2, 1]}}, "sigma must rise"),
        ({"grayscale": {"p": 1.5}}, "p must be a number from 0 to 1"),
        ({"solarize": {"threshold": 300}}, "threshold must be"),
        ({"posterize": {"bits": 0}}, "bits must be"),
        ({"perspective": {"distortion_scale": "much"}}, "distortion_scale must be"),
        ({"affine": {"degrees": 5, "translate": [2, 0]}}, "translation"),
        ({"affine": {"fill": 256}}, "fill must be"),
        ({"resize": {"fit": "letterbox"}}, "side, crop, pad, stretch"),
        ({"resize": {"fill": 9}}, "fill goes with fit: pad"),
        ({"random_choice": {"operations": [_FLIP], "p": [0]}}, "weights"),
        ({"random_choice": {"operations": [_FLIP], "p": [1, 1]}}, "1 weights"),
        ({"random_order": {"operations": []}}, "list of one or more"),
        ({"random_apply": {"operations": ["horizontal_flip", 3]}}, "a name, or one name"),
        ({"random_apply": {"operations": [{"rotation": {}}]}}, "degrees is missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_are_refused_with_their_place(operation: Any, fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _made(operation)
    assert fragment in str(caught.value)
    assert str(caught.value.where).startswith("augment.train[0]")


def test_names_inside_of_operations_are_checked_without_torch() -> None:
    inner = {"random_order": {"operations": [{"hsv": {"hues": 1}}]}}
    values = {"augment": {"train": [{"random_apply": {"operations": ["equalise", inner]}}]}}
    problems = name_problems(values, {}, Place("c.yaml"))
    assert [(problem.path, problem.fix) for problem in problems] == [
        ("augment.train[0].random_apply.operations[0]", "did you mean equalize?"),
        (
            "augment.train[0].random_apply.operations[1].random_order.operations[0].hsv",
            "did you mean augment.train[0].random_apply.operations[1].random_order.operations[0].hsv.hue?",
        ),
    ]


def test_a_list_inside_of_a_list_is_read_from_a_config() -> None:
    text = "augment:\n  train:\n    - random_choice: {operations: [grayscale, {rotation: {degrees: 9}}], p: [1, 3]}\n"
    run = load_text(text, "c.yaml").run
    augment = build(run.augment.train, train=True, image_size=8)
    again = pickle.loads(pickle.dumps(augment))
    for sample in range(4):
        np.testing.assert_array_equal(augment(_image(), (0, 0, sample)), again(_image(), (0, 0, sample)))


def test_stages_end_with_what_the_model_sees() -> None:
    augment = build(("equalize", {"aug_mix": {}}, {"center_crop": {"size": 20}}), train=True, image_size=20)
    stages = augment.stages(_image(), (3, 1, 4))
    assert [stage.name for stage in stages] == ["", "equalize", "aug_mix", "center_crop"]
    np.testing.assert_array_equal(stages[0].pixels, np.asarray(_image()))
    np.testing.assert_array_equal(stages[-1].pixels, augment(_image(), (3, 1, 4)))
    np.testing.assert_array_equal(
        stages[1].pixels, build(("equalize",), train=True, image_size=20)(_image(), (3, 1, 4))
    )


@pytest.mark.parametrize("name", ["gaussian_blur", "aug_mix"])
def test_sums_of_floats_are_those_of_one_thread(name: str) -> None:
    nested = {"random_order": {"operations": [{name: {}}, "equalize"]}}
    threads = torch.get_num_threads()
    try:
        made = []
        for count in (1, 2):
            torch.set_num_threads(count)
            made.append(_made(nested, 5, _image(90, 90)).tobytes())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert made[0] == made[1]


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_no_operation_makes_too_large_an_image(fit: str) -> None:
    """A thin image that fills 1000 x 1000 would be 1000 x 300,000 on its way; in a list inside of a list as well."""
    entry = {"resize": {"size": 1000, "fit": fit}}
    thin = Image.new("RGB", (1, 300))
    nested = {"random_order": {"operations": [entry]}}
    augment = build((nested,), train=True, image_size=8, max_pixels=1_000_000)
    if fit == "pad":
        assert augment(thin, (0, 0, 0)).shape == (1000, 1000, 3)
        return
    with pytest.raises(UnfitError) as caught:
        augment(thin, (0, 0, 0))
    assert "augment.train[0].random_order.operations[0]" in str(caught.value)


def test_largest_knows_both_passes_of_a_fitted_resize() -> None:
    """Along the width first: 300 x 1 into 20 x 20 is 300 x 20 between for `crop`, and 6000 x 20 after."""
    assert largest(Fit((20, 20), "crop", _LINEAR), 300, 1) == 6000 * 20
    assert largest(Fit((20, 20), "pad", _LINEAR), 300, 200) == 300 * 13
    assert largest(Fit((50, 50), "pad", _LINEAR), 10, 10) == 2500
