"""Which part of making a sample is which, by a clock that only the parts move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raycls.data import source
from raycls.data.order import Order
from raycls.data.samples import Keys
from raycls.data.slices import Maker
from raycls.data.source import Split
from raycls.errors import DataError
from raycls.session.speed import samples
from raycls.session.speed.samples import Made, Samples

FETCH, DECODE, AUGMENT, MASK = 1.0, 10.0, 100.0, 1000.0


class _Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class _Reader:
    def __init__(self, clock: _Clock, what: Any, takes: float = FETCH) -> None:
        self.clock, self.what, self.takes = clock, what, takes

    def read(self, index: int) -> Any:
        self.clock.now += self.takes
        return self.what

    def locate(self, index: int) -> str:
        return f"place {index}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(samples, "time", made)

    def decode(data: bytes, name: str, **options: Any) -> Image.Image:
        made.now += DECODE
        if data == b"damaged":
            raise DataError("a sample is a damaged image", where=name)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(source, "decoded", decode)
    return made


def _samples(clock: _Clock, what: Any, masks: bool = False) -> Samples:
    def arrays(split: Split, index: int, key: Any, *, train: bool) -> dict[str, np.ndarray]:
        image = np.asarray(split.image(index))
        if masks:
            split.read(index, "mask")
        clock.now += AUGMENT
        return {"image": image}

    labels, keys = np.zeros(6, np.int64), Keys(map(str, range(6)))
    split = Split("train", ("a",), labels, keys, _Reader(clock, what), ("png",), 100)
    if masks:
        split = replace(split, parts={"mask": _Reader(clock, b"", MASK)})
    return Samples(Maker(Order(0, 6, 3, 1), 1, split, None, 1, arrays), split)


def test_a_file_is_read_decoded_and_augmented(clock: _Clock) -> None:
    made = _samples(clock, b"file")
    found, costs = made.make(0)
    assert costs == Made(3, 3 * FETCH, 3 * DECODE, 3 * AUGMENT)
    assert costs.seconds == 3 * (FETCH + DECODE + AUGMENT)
    assert made.encoded and found.arrays["image"].shape == (3, 4, 4, 3)
    assert found.position.step == 0 and len(found.ids) == 3


def test_pixels_of_a_source_are_not_decoded(clock: _Clock) -> None:
    made = _samples(clock, np.zeros((4, 4, 3), np.uint8))
    assert made.make(1)[1] == Made(3, 3 * FETCH, 0.0, 3 * AUGMENT)
    assert not made.encoded


def test_other_parts_of_a_sample_are_fetched_too(clock: _Clock) -> None:
    assert _samples(clock, b"file", masks=True).make(0)[1] == Made(3, 3 * (FETCH + MASK), 3 * DECODE, 3 * AUGMENT)


def test_a_damaged_image_is_an_error_that_names_it(clock: _Clock) -> None:
    with pytest.raises(DataError) as caught:
        _samples(clock, b"damaged").make(0)
    assert str(caught.value.where).startswith("place ")
