"""`data.channels` and `data.bit_depth`: what does not fit is refused when a config is loaded, with what to type."""

from __future__ import annotations

from typing import Any

import pytest

from raycls.config.load import load_text
from raycls.config.sections.data import AugmentConfig
from raycls.errors import ConfigError

_GREY = ("data.channels=1", "model.in_channels=1")
_DEEP = (*_GREY, "data.bit_depth=16")
_FIVE = ("data.channels=5", "model.in_channels=5")


@pytest.mark.parametrize(
    ("overrides", "what", "fix"),
    [
        (("data.bit_depth=16",), "not for RGB", "data.channels=1 model.in_channels=1, or data.bit_depth=8"),
        (("data.channels=1",), "model.in_channels is 3", "model.in_channels=1"),
        ((*_GREY, "augment.train=[resize, hsv]"), "augment.train[1]: hsv changes colours", "data.channels=3"),
        ((*_GREY, "augment.eval=[grayscale]"), "augment.eval[0]: grayscale changes colours", "data.channels=3"),
        ((*_GREY, "augment.train=[{color_jitter: {hue: 0.1}}]"), "hue of color_jitter changes", "data.channels=3"),
        (
            (*_GREY, "augment.train=[{random_apply: {operations: [{random_order: {operations: [hsv]}}]}}]"),
            "augment.train[0].random_apply.operations[0].random_order.operations[0]: hsv",
            "data.channels=3",
        ),
        ((*_GREY, "augment.train=[{rotation: {degrees: 9, fill: [1, 2, 3]}}]"), "has 3 levels", "data.channels=3"),
        (
            (*_GREY, "augment.train=[{random_resized_crop: {resampling: fast}}]"),
            "resampling: fast makes RGB",
            "data.channels=3",
        ),
        ((*_DEEP, "augment.train=[{color_jitter: {brightness: 0.1}}]"), "works on 8 bits", "data.bit_depth=8"),
        (
            (*_FIVE, "augment.train=[equalize]"),
            "equalize is for RGB or grey, and data.channels is 5",
            "data.channels=3 model.in_channels=3",
        ),
        ((*_FIVE, "augment.train=[{affine: {fill: [1, 2, 3]}}]"), "the fill of affine has 3", "data.channels=3"),
        ((*_DEEP, "augment.train=[rand_augment]"), "rand_augment works on 8 bits", "data.bit_depth=8"),
        ((*_DEEP, "augment.eval=[{resize: {fit: pad, fill: 114}}]"), "the fill of resize", "data.bit_depth=8"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: tuple[str, ...], what: str, fix: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text("", "c.yaml", overrides)
    assert what in str(raised.value)
    assert raised.value.fix is not None and fix in raised.value.fix


@pytest.mark.parametrize(
    "overrides",
    [
        (
            *_GREY,
            "augment.train=[equalize, posterize, {color_jitter: {brightness: 0.1, hue: 0}}, trivial_augment_wide]",
        ),
        (*_GREY, "augment.train=[{rotation: {degrees: 9, fill: 7}}, {aug_mix: {fill: null}}]"),
        (*_DEEP, "augment.train=[{rotation: {degrees: 9}}, {random_choice: {operations: [affine]}}]"),
        (*_DEEP, "augment.eval=[{'transforms:noise': {fill: 3}}]"),
        (*_DEEP, "augment.mean=[0.5]", "augment.std=[0.1]"),
        ("model.in_channels=1", "augment.mean=[0.5]", "augment.train=[hsv]"),
    ],
)
def test_what_fits_is_taken(overrides: tuple[str, ...]) -> None:
    assert load_text("", "c.yaml", overrides).run.model.in_channels == 1


@pytest.mark.parametrize(
    ("values", "channels", "decoded"),
    [([0.9, 0.9], 3, 3), ([0.9, 0.99, 0.999, 1], 3, 3), ([0.5], 3, 3), ([0.5, 0.5], 1, 3), ([0.1, 0.2, 0.3], 5, 5)],
)
def test_as_many_numbers_as_channels(values: list[float], channels: int, decoded: int) -> None:
    given = (f"augment.mean={values}", f"model.in_channels={channels}", f"data.channels={decoded}")
    with pytest.raises(ConfigError) as raised:
        load_text("", "c.yaml", given)
    assert "augment.mean: the wrong number of values" in str(raised.value)


def test_channels_of_their_own_are_taken() -> None:
    moving = (
        "augment.train=[resize, {random_choice: {operations: [horizontal_flip, {rotation: {degrees: 9, fill: 3}}]}}]"
    )
    run = load_text("", "c.yaml", (*_FIVE, moving, "augment.mean=[0, 0, 0, 0, 0.1]", "data.formats=[npy]")).run
    assert (run.data.channels, len(run.augment.mean), run.data.bit_depth) == (5, 5, 8)
    assert load_text("", "c.yaml", (*_FIVE, "data.bit_depth=16")).run.data.bit_depth == 16


@pytest.mark.parametrize(
    ("given", "channels", "mean", "std"),
    [
        ({}, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}, 1, (0.4815,), (0.24075,)),
        ({"mean": (0.7,), "std": (0.2, 0.25, 0.3)}, 1, (0.7,), (0.24075,)),
        ({}, 5, (0.5,) * 5, (0.5,) * 5),
        ({"mean": (0.1, 0.2, 0.3, 0.4, 0.5)}, 5, (0.1, 0.2, 0.3, 0.4, 0.5), (0.5,) * 5),
    ],
)
def test_normalisation(given: Any, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    found = AugmentConfig(**given).normalisation(channels)
    assert found[0] == pytest.approx(mean, abs=1e-6) and found[1] == pytest.approx(std, abs=1e-6)
