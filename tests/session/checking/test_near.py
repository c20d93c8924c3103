"""Copies of an image are found whatever was done to them, and different images are never taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from harness.planted import picture
from PIL import Image
from PIL.Image import Resampling, Transpose

from raycls.session.checking import near
from raycls.session.checking.looked import LUMA, small
from raycls.session.checking.near import Pair, near_duplicates

PICTURES = [picture(seed) for seed in range(120)]


def _pairs(images: list[Image.Image]) -> list[Pair]:
    return near_duplicates(np.stack([small(image) for image in images]), np.array([image.size for image in images]))


def _encoded(kind: str, quality: int) -> Callable[[Image.Image], Image.Image]:
    def encode(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, kind, quality=quality)
        return Image.open(stream).convert("RGB")

    return encode


def _resized(factor: float, how: Resampling) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)), how)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_encoded("JPEG", 90), "re-encoded"),
        (_encoded("JPEG", 30), "re-encoded"),
        (_encoded("WEBP", 50), "re-encoded"),
        (_resized(0.5, Resampling.BICUBIC), "resized"),
        (_resized(0.7, Resampling.BOX), "resized"),
        (_resized(3, Resampling.NEAREST), "resized"),
        (_resized(2.3, Resampling.LANCZOS), "resized"),
        (lambda image: image.resize((64, 64)), "resized"),
        (lambda image: _encoded("JPEG", 70)(image.transpose(Transpose.FLIP_LEFT_RIGHT)), "mirrored"),
        (lambda image: image.transpose(Transpose.FLIP_TOP_BOTTOM), "mirrored"),
        (lambda image: image.transpose(Transpose.ROTATE_180), "turned by 180 degrees"),
    ],
)
def test_all_copies_and_nothing_else(change: Callable[[Image.Image], Image.Image], kind: str) -> None:
    found = _pairs([*PICTURES, *map(change, PICTURES[:20])])
    assert [(pair.first, pair.second) for pair in found] == [(index, len(PICTURES) + index) for index in range(20)]
    assert {pair.kind for pair in found} == {kind}


@pytest.mark.slow
def test_the_digits_have_no_copies_and_a_planted_one_is_found() -> None:
    from sklearn.datasets import load_digits

    pixels = ((load_digits().images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    digits = [Image.fromarray(each).convert("RGB") for each in pixels]
    changed = [_resized(2, Resampling.BICUBIC)(digits[3]), _encoded("JPEG", 90)(digits[1000])]
    found = _pairs([*digits, *changed])
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [
        (3, len(digits), "resized"),
        (1000, len(digits) + 1, "re-encoded"),
    ]


def test_neither_colour_nor_brightness_may_differ() -> None:
    image = np.asarray(PICTURES[0]).astype(np.int64)
    brighter = Image.fromarray((image // 2 + 90).astype(np.uint8))
    coloured = Image.fromarray((image // 2 + [0, 30, 90]).astype(np.uint8))
    assert _pairs([Image.fromarray((image // 2).astype(np.uint8)), brighter, coloured]) == []


def test_images_of_one_colour_and_tiny_ones_are_not_compared() -> None:
    flat = [Image.new("RGB", (20, 20), (level, level, level)) for level in (100, 101, 102)]
    tiny = [image.resize((7, 40)) for image in PICTURES[:1] * 2]
    assert _pairs([*flat, *tiny]) == []
    assert near_duplicates(np.zeros((0, 1152), np.uint8), np.zeros((0, 2), np.int32)) == []


def test_many_copies_of_one_image_are_all_found() -> None:
    copies = [_encoded("JPEG", quality)(PICTURES[0]) for quality in range(60, 96, 3)]
    found = _pairs([*PICTURES, *copies])
    joined = {pair.second for pair in found if pair.first == 0}
    assert joined == {len(PICTURES) + index for index in range(len(copies))}


def test_how_much_is_compared_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [*PICTURES, *(_encoded("JPEG", 40)(image) for image in PICTURES[::3])]
    whole = _pairs(images)
    for name, value in (("_ROWS", 7), ("_COLUMNS", 11), ("_BLOCK", 8)):
        monkeypatch.setattr(near, name, value)
    assert _pairs(images) == whole
    assert len(whole) == 40


def test_no_copy_is_lost_to_the_first_step() -> None:
    """Against all pairs: the distance of the low frequencies is never more than that of the pictures."""
    stacked = np.stack([small(image) for image in PICTURES])[:, : LUMA * LUMA].reshape(-1, LUMA, LUMA)
    coarse, _ = near._standard(near._averaged(stacked, 8))
    features = near._features(coarse)
    low = np.linalg.norm(features[:, None] - features, axis=2)
    whole = np.sqrt(((coarse[:, None] - coarse) ** 2).mean((2, 3)))
    assert (low <= whole + 1e-5).all()
    radius = np.quantile(low[np.triu_indices(len(low), 1)], 0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_NEAR", radius)
        for rows, columns in ((slice(None), slice(None)), (slice(None), slice(None, None, -1))):
            turned = np.linalg.norm(near._features(coarse[:, rows, columns])[:, None] - features, axis=2)
            expected = {(a, b) for a, b in np.argwhere(turned <= radius - 1e-5).tolist() if a < b}
            found = {tuple(pair) for _, pairs in near._close(coarse, rows, columns) for pair in pairs.tolist()}
            assert expected <= found
            assert len(found) < 1.5 * len(expected) + 5
