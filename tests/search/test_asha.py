"""Successive halving against values worked out by hand, and against the scheduler of Ray Tune (which starts no Ray)."""

from __future__ import annotations

import math
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from raycls.search.asha import Asha
from raycls.search.scheduler import Verdict


def _asha(**changes: Any) -> Asha:
    return Asha(**{"grace": 1, "reduction": 4, "brackets": 1, "longest": 100, "mode": "max", "seed": 0, **changes})


@pytest.mark.parametrize(
    ("grace", "reduction", "longest", "milestones"),
    [
        (1, 4, 100, [1, 4, 16, 64]),
        (1, 4, 64, [1, 4, 16]),
        (2, 3, 53.9, [2, 6, 18]),
        (0.1, 3, 0.9, [0.1, 0.3]),  # 0.1 * 9 is below 0.9 by a rounding alone
        (5, 2, 5, []),
        (9, 2, 5, []),
    ],
)
def test_milestones(grace: float, reduction: int, longest: float, milestones: list[float]) -> None:
    rungs = _asha(grace=grace, reduction=reduction, longest=longest).rungs
    assert [milestone for _, milestone, _ in rungs] == pytest.approx(milestones)


def test_brackets_begin_one_rung_later_each() -> None:
    rungs = _asha(brackets=4, longest=20).rungs
    assert [rung[:2] for rung in rungs] == [(0, 1), (0, 4), (0, 16), (1, 4), (1, 16), (2, 16)]


def test_by_hand() -> None:
    asha = _asha()
    assert asha.judge(1, 1, 0.5) == Verdict(False, 1, None)  # the first one has nothing to be compared with
    assert asha.judge(2, 1, 0.6) == Verdict(False, 1, 0.5)
    found = asha.judge(3, 1, 0.55)  # of 0.5 and 0.6, three quarters of the way: 0.575
    assert (found.stop, found.rung, found.cutoff) == (True, 1, pytest.approx(0.575))
    assert found.why == "0.55 is worse than 0.575 at rung 1"
    found = asha.judge(4, 1, 0.58)  # of 0.5, 0.55, 0.6: halfway from the second to the third
    assert (found.stop, found.cutoff) == (False, pytest.approx(0.575))
    assert asha.judge(4, 2, 0.1) == Verdict()  # between the rungs
    assert asha.judge(4, 4, 0.1) == Verdict(False, 4, None)
    assert asha.rungs[:3] == [(0, 1, {1: 0.5, 2: 0.6, 3: 0.55, 4: 0.58}), (0, 4, {4: 0.1}), (0, 16, {})]


def test_less_is_better_in_mode_min() -> None:
    asha = _asha(mode="min")
    asha.judge(1, 1, 2.0)
    assert asha.judge(2, 1, 1.0) == Verdict(False, 1, 2.0)
    found = asha.judge(3, 1, 1.5)
    assert (found.stop, found.cutoff) == (True, 1.25)
    assert asha.rungs[0] == (0, 1, {1: 2.0, 2: 1.0, 3: 1.5})


def test_ties_go_on() -> None:
    asha = _asha()
    assert not any(asha.judge(number, 1, 0.5).stop for number in range(1, 20))
    assert asha.judge(20, 1, 0.5 - 1e-9).stop


def test_a_result_counts_at_the_highest_rung_that_it_came_past() -> None:
    asha = _asha()
    assert asha.judge(1, 17.5, 0.5).rung == 16
    assert [len(recorded) for _, _, recorded in asha.rungs] == [0, 0, 1, 0]


def test_times_that_differ_by_rounding_are_one() -> None:
    assert _asha(grace=0.1, reduction=3).judge(1, 0.3, 1.0).rung == pytest.approx(0.3)  # 0.1 * 3 > 0.3


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_finite_ends_at_a_rung_and_not_before(value: float, mode: str) -> None:
    asha = _asha(grace=2, mode=mode)
    assert not asha.judge(1, 1, value).stop
    found = asha.judge(1, 2, value)  # the first one there
    assert found == Verdict(True, 2, None, f"{value} at rung 2")


def test_what_is_not_finite_counts_as_the_worst_in_the_cutoff() -> None:
    asha = _asha(reduction=2)
    values = [math.nan, 0.2, math.nan, 0.4, 0.3]  # the median before the last one: between the worst and 0.2
    found = [asha.judge(number, 1, value) for number, value in enumerate(values)]
    assert [verdict.cutoff for verdict in found] == [None, None, None, None, None]
    assert [verdict.stop for verdict in found] == [True, False, True, False, False]
    assert asha.judge(5, 1, 0.1).cutoff == 0.2  # of nan, nan, 0.2, 0.3, 0.4
    assert math.isnan(asha.rungs[0][2][0])


def test_repetitions_change_nothing() -> None:
    asha = _asha()
    for number, value in enumerate([0.5, 0.7, 0.6, 0.9]):
        asha.judge(number, 4, value)
    before = asha.rungs
    for number, time in [(0, 4), (2, 4), (3, 4), (3, 1), (0, 3.5)]:  # a trial that goes on from a checkpoint
        assert asha.judge(number, time, -1.0) == Verdict()
    assert asha.rungs == before


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("brackets", [1, 3])
def test_a_replay_gives_the_same_verdicts_and_rungs(mode: str, brackets: int) -> None:
    stream = random.Random(3)
    results, stopped = [], set()
    asha = _asha(mode=mode, brackets=brackets, seed=5)
    times = dict.fromkeys(range(1, 30), 0)
    for _ in range(400):
        number = stream.choice(sorted(times))
        if number not in stopped:
            times[number] += 1
            value = math.nan if stream.random() < 0.05 else round(stream.random(), 1)  # with ties
            verdict = asha.judge(number, times[number], value)
            results.append((number, times[number], value, verdict))
            if verdict.stop:
                stopped.add(number)
    assert 5 < len(stopped) < 29
    again = _asha(mode=mode, brackets=brackets, seed=5)
    assert [again.judge(number, time, value) for number, time, value, _ in results] == [item[-1] for item in results]
    assert repr(again.rungs) == repr(asha.rungs)  # nan is not nan


def test_brackets_are_drawn_by_the_number_of_their_rungs() -> None:
    asha = _asha(brackets=3, longest=20, seed=1)
    found = Counter(asha.bracket(number) for number in range(4000))
    weights = [math.exp(3), math.exp(2), math.exp(1)]
    assert [found[index] / 4000 for index in range(3)] == pytest.approx(
        [weight / sum(weights) for weight in weights], abs=0.03
    )
    again = _asha(brackets=3, longest=20, seed=1)
    assert [again.bracket(number) for number in (700, 3, 9)] == [asha.bracket(number) for number in (700, 3, 9)]
    other = _asha(brackets=3, longest=20, seed=2)
    assert [other.bracket(number) for number in range(50)] != [asha.bracket(number) for number in range(50)]


@pytest.mark.parametrize("wrong", [{"grace": 0}, {"reduction": 1}, {"brackets": 0}])
def test_arguments_that_make_no_rungs(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        _asha(**wrong)


def _oracle(grace: int, reduction: int, longest: int, brackets: int, mode: str) -> Any:
    from ray.tune.schedulers import AsyncHyperBandScheduler

    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="value",
        mode=mode,
        max_t=longest,
        grace_period=grace,
        reduction_factor=reduction,
        brackets=brackets,
        stop_last_trials=False,
    )


def _stopped_as_by_ray(stream: random.Random, mode: str) -> int:
    """Trials report in a random order, skip epochs, tie, and repeat what they reported."""
    grace, reduction, longest = stream.randint(1, 3), stream.randint(2, 5), stream.randint(4, 90)
    brackets = stream.choice([1, 1, 3])
    ray = _oracle(grace, reduction, longest, brackets, mode)
    asha = _asha(grace=grace, reduction=reduction, longest=longest, brackets=brackets, mode=mode)
    trials = [SimpleNamespace(trial_id=str(number)) for number in range(stream.randint(2, 25))]
    for number, trial in enumerate(trials):
        ray._trial_info[trial.trial_id] = ray._brackets[asha.bracket(number)]  # theirs is drawn without a seed
    times = dict.fromkeys(range(len(trials)), 0)
    digits = stream.choice([1, 15])
    while times:
        number = stream.choice(sorted(times))
        times[number] += stream.choice([0, 1, 1, 1, 2, 5])
        if times[number] >= longest:
            del times[number]
            continue
        value = round(stream.random(), digits)
        expected = ray.on_trial_result(None, trials[number], {"epoch": times[number], "value": value})
        assert asha.judge(number, times[number], value).stop == (expected == "STOP")
        if expected == "STOP":
            del times[number]
    sign = 1 if mode == "max" else -1
    theirs = {
        (index, milestone): {int(number): sign * value for number, value in recorded.items()}
        for index, bracket in enumerate(ray._brackets)
        for milestone, recorded in bracket._rungs
        if milestone < longest
    }
    assert {(index, milestone): recorded for index, milestone, recorded in asha.rungs} == theirs
    return ray._num_stopped


@pytest.mark.parametrize("mode", ["max", "min"])
def test_decisions_and_rungs_are_those_of_ray(mode: str) -> None:
    assert sum(_stopped_as_by_ray(random.Random(sequence), mode) for sequence in range(150)) > 500
