from __future__ import annotations

import math

import pytest

from raycls.search.scheduler import Never, Verdict, goodness


@pytest.mark.parametrize("value", [0.0, 1e9, math.nan, math.inf, -math.inf])
def test_never_stops_nothing(value: float) -> None:
    never = Never()
    assert never.judge(1, 1.0, value) == Verdict(stop=False, rung=None, cutoff=None, why="")
    assert never.rungs == []


def test_more_goodness_is_better() -> None:
    assert goodness(0.9, "max") > goodness(0.8, "max")
    assert goodness(0.9, "min") < goodness(0.8, "min")


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_the_worst(value: float, mode: str) -> None:
    assert goodness(value, mode) == -math.inf
