"""Operations on arrays are those of torchvision on Pillow images, bit by bit and number by number drawn."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np
import pytest
import torch
from harness.errors import raised
from PIL import Image
from torchvision.transforms import v2

from raycls.data.images.arrays import form_of
from raycls.data.images.operations import build
from raycls.data.order import key
from raycls.data.samples import UnfitError

SIZES = ((32, 32), (1, 1), (5, 40), (40, 5), (33, 47), (1, 90))
OPERATIONS = {
    "flip": v2.RandomHorizontalFlip(0.5),
    "flip rarely": v2.RandomHorizontalFlip(0.1),
    "flip vertically": v2.RandomVerticalFlip(0.7),
    "center crop": v2.CenterCrop([21, 16]),
    "center crop of all": v2.CenterCrop(32),
    "random crop": v2.RandomCrop(32, padding=4),
    "random crop, unlike paddings": v2.RandomCrop([20, 9], padding=[30, 1, 0, 45], fill=7),
    "random crop, filled": v2.RandomCrop([3, 40], padding=40, fill=[1, 2, 3]),
    "random crop, not padded": v2.RandomCrop([1, 1]),
    "random resized crop": v2.RandomResizedCrop(24),
    "random resized crop of small parts": v2.RandomResizedCrop([9, 30], scale=(0.01, 0.02), ratio=(0.2, 5.0)),
    "random resized crop of the middle": v2.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(2.9, 3.0)),
}


def _pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _drawn(operation: Any, image: Image.Image, seed: int) -> tuple[np.ndarray, float]:
    """What torchvision makes of `image`, and the number that its generator gives next."""
    torch.manual_seed(seed)
    return np.asarray(operation(image)), torch.rand(1).item()


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_form_makes_and_draws_what_torchvision_does(name: str) -> None:
    operation, generator = OPERATIONS[name], torch.Generator()
    form = form_of(operation)
    assert form is not None
    for height, width in SIZES:
        pixels = _pixels(height, width)
        pixels.flags.writeable = False
        try:
            _drawn(operation, Image.fromarray(pixels), 0)
        except ValueError as error:
            with pytest.raises(ValueError, match="larger than") as caught:
                form(pixels, generator)
            assert str(caught.value) == str(error)
            continue
        for seed, given in ((seed, given) for seed in range(12) for given in (pixels, Image.fromarray(pixels))):
            wanted, after = _drawn(operation, Image.fromarray(pixels), seed)
            np.testing.assert_array_equal(np.asarray(form(given, generator.manual_seed(seed))), wanted)
            assert torch.rand(1, generator=generator).item() == after


@pytest.mark.parametrize(
    "operation",
    [
        v2.RandomCrop(4, padding=2, padding_mode="reflect"),
        v2.RandomCrop(4, padding=-1),
        v2.RandomCrop(4, pad_if_needed=True),
        v2.ColorJitter(0.1),
        v2.Resize(4),
    ],
)
def test_other_operations_have_none(operation: Any) -> None:
    assert form_of(operation) is None


@pytest.mark.parametrize(
    ("operations", "separate"),
    [
        (("random_resized_crop", "horizontal_flip"), True),
        (({"random_crop": {"padding": 4}}, "horizontal_flip", "center_crop"), True),
        (({"resize": {"size": 20}}, "vertical_flip"), True),
        ((), True),
        (("horizontal_flip", {"color_jitter": {"hue": 0.1}}), False),
        (({"random_apply": {"operations": ["horizontal_flip"]}},), False),
    ],
)
def test_an_array_and_an_image_are_augmented_alike(operations: Any, separate: bool) -> None:
    augment = build(operations, train=True, image_size=16)
    assert augment.separate == separate
    for sample in range(20):
        pixels = _pixels(30, 41)
        image = augment(Image.fromarray(pixels), (1, 2, sample))
        np.testing.assert_array_equal(augment(pixels, (1, 2, sample)), image)
        stages = augment.stages(pixels, (1, 2, sample))
        np.testing.assert_array_equal(stages[-1].pixels, image)
        np.testing.assert_array_equal(pixels, _pixels(30, 41))


def test_the_default_list_is_torchvision_seeded_with_the_key() -> None:
    wanted = v2.Compose([v2.RandomResizedCrop(16), v2.RandomHorizontalFlip()])
    augment = build(None, train=True, image_size=16)
    for sample in range(20):
        torch.manual_seed(key(3, 1, sample))
        np.testing.assert_array_equal(
            augment(_pixels(30, 41), (3, 1, sample)), np.asarray(wanted(Image.fromarray(_pixels(30, 41))))
        )


def test_separate_operations_neither_move_nor_follow_the_generator_of_the_process() -> None:
    augment = build(None, train=True, image_size=16)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    augment(_pixels(30, 41), (1, 2, 3))
    assert torch.equal(torch.rand(3), wanted)


def test_threads_augment_at_the_same_time() -> None:
    augment = build(None, train=True, image_size=16)
    wanted = [augment(_pixels(30, 41), (1, 2, sample)) for sample in range(40)]
    made: dict[int, list[np.ndarray]] = {}

    def work(name: int) -> None:
        made[name] = [augment(_pixels(30, 41), (1, 2, sample)) for sample in range(40)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    for found in made.values():
        np.testing.assert_array_equal(found, wanted)


def test_a_crop_that_is_too_large_names_the_size_of_an_array() -> None:
    what = "the operation random_crop (augment.train[0]) failed on an image of 30 x 41 (height x width)"
    with raised(UnfitError, what=what, found=re.compile(r"\(64, 64\) is larger than input image size \(30, 41\)")):
        build(("random_crop",), train=True, image_size=64)(_pixels(30, 41), (1, 2, 3))
