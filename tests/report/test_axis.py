"""Axes: their ends and ticks by hand."""

from __future__ import annotations

import math

import pytest

from raycls.report.axis import axis, number


def test_ticks_are_round_and_enclose_the_values() -> None:
    found = axis([0.79, 1.12])
    assert [round(tick, 9) for tick in found.ticks] == [0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    assert found.place(0.7) == pytest.approx(0)
    assert found.place(1.2) == pytest.approx(1)
    assert [found.text(tick) for tick in found.ticks] == ["0.7", "0.8", "0.9", "1", "1.1", "1.2"]


def test_a_share_ends_at_0_and_1() -> None:
    found = axis([0.97, 1.0], share=True)
    assert found.high == 1
    assert found.text(found.ticks[-1]) == "100 %"
    assert axis([0.0, 0.02], share=True).low == 0
    assert axis([1.0, 1.0], share=True).high == 1


def test_one_value_has_room_around_it() -> None:
    for value in (0.003, 5.0, 0.0, -2.0):
        found = axis([value])
        assert 0 < found.place(value) < 1


def test_values_far_apart_are_drawn_by_their_logarithm() -> None:
    found = axis([2.0, 3000.0])
    assert found.logarithmic
    assert found.ticks == (1, 10, 100, 1000, 10000)
    assert found.place(100) == pytest.approx(0.5)
    assert not axis([2.0, 3000.0], linear=True).logarithmic
    assert not axis([-2.0, 3000.0]).logarithmic


def test_an_axis_from_zero_begins_there() -> None:
    found = axis([1500, 1700], from_zero=True)
    assert (found.low, found.high) == (0, 2000)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.45834, "0.4583"), (1524.9, "1,525"), (3e-5, "3e-05"), (12, "12"), (2.5e12, "2.500e+12"), (math.inf, "inf")],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text
