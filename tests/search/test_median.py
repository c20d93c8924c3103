"""The median rule against values worked out by hand, and against the rule of Ray Tune (which starts no Ray)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from raycls.search.median import Median
from raycls.search.scheduler import Verdict


def _three(mode: str = "max", grace: float = 1) -> Median:
    """Three trials of three epochs, whose averages are 0.2, 0.4 and 0.6 after two epochs."""
    median = Median(grace=grace, mode=mode)
    for number, values in enumerate([(0.1, 0.3, 0.9), (0.3, 0.5, 0.9), (0.5, 0.7, 0.9)]):
        for epoch, value in enumerate(values, start=1):
            assert not median.judge(number, epoch, value).stop
    return median


def test_by_hand() -> None:
    median = _three()
    assert median.judge(9, 1, 0.35) == Verdict(False, None, 0.3)
    found = median.judge(9, 2, 0.2)  # its best, 0.35, is below 0.4
    assert (found.stop, found.cutoff) == (True, pytest.approx(0.4))
    assert found.why == "its best, 0.35, is worse than the others' median 0.4"
    assert median.rungs == []


def test_less_is_better_in_mode_min() -> None:
    median = _three("min")
    assert median.judge(9, 1, 0.3) == Verdict(False, None, 0.3)  # a tie goes on
    assert not median.judge(9, 2, 0.5).stop
    assert median.judge(8, 2, 0.41).stop


def test_nothing_is_stopped_before_the_grace_or_with_fewer_than_three_others() -> None:
    median = _three(grace=2)
    assert median.judge(9, 1, 0.0) == Verdict()
    found = median.judge(9, 2, 0.0)
    assert (found.stop, found.cutoff) == (True, 0.5)  # averages from the grace on: 0.3, 0.5, 0.7
    two = Median(grace=1, mode="max")
    assert not any(two.judge(number, 1, value).stop for number, value in enumerate([0.9, 0.8, 0.0]))
    assert two.judge(3, 1, 0.1).stop


def test_others_are_those_that_came_as_far() -> None:
    assert _three().judge(9, 4, 0.0) == Verdict()


@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_finite_is_the_worst(mode: str) -> None:
    assert _three(mode).judge(9, 1, math.nan).stop
    median = Median(grace=1, mode=mode)
    for number in range(3):
        assert not median.judge(number, 1, math.nan).stop
    assert median.judge(3, 1, 0.5) == Verdict()  # the others' median is no number
    assert not median.judge(4, 1, math.nan).stop


def test_repetitions_change_nothing() -> None:
    median, other = _three(), _three()
    for known in (median, other):
        assert known.judge(9, 1, 0.35).cutoff == 0.3
    assert median.judge(9, 1, 0.9) == Verdict()
    for epoch in (1, 2, 3):
        assert median.judge(2, epoch, -9.0) == Verdict()
    assert median.judge(9, 2, 0.3) == other.judge(9, 2, 0.3) != Verdict()


@dataclass(frozen=True)
class _Trial:
    trial_id: str


def _stopped_as_by_ray(stream: random.Random, mode: str) -> int:
    from ray.tune.schedulers import MedianStoppingRule

    grace = stream.randint(1, 4)
    ray: Any = MedianStoppingRule(time_attr="epoch", metric="value", mode=mode, grace_period=grace)
    ours = Median(grace=grace, mode=mode)
    controller = SimpleNamespace(get_live_trials=list)
    trials = [_Trial(str(number)) for number in range(stream.randint(3, 12))]
    times, stopped = dict.fromkeys(range(len(trials)), 0), 0
    while times:
        number = stream.choice(sorted(times))
        times[number] += stream.choice([1, 1, 3])
        if times[number] > 20:
            del times[number]
            continue
        value = stream.random()
        expected = ray.on_trial_result(controller, trials[number], {"epoch": times[number], "value": value})
        assert ours.judge(number, times[number], value).stop == (expected == "STOP")
        if expected == "STOP":
            stopped += 1
            del times[number]
    return stopped


@pytest.mark.parametrize("mode", ["max", "min"])
def test_decisions_are_those_of_ray(mode: str) -> None:
    assert sum(_stopped_as_by_ray(random.Random(sequence), mode) for sequence in range(100)) > 100
