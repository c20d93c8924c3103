"""Who learns from whom, worked out by hand, and how values change."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any, Literal

import pytest

from raycls.config.sections.duration import Duration
from raycls.config.sections.search import SchedulerConfig
from raycls.config.space.space import Condition, Parameter, Space
from raycls.search.pbt import Population

_RATE = Parameter("optim.lr", "loguniform", low=1e-3, high=1.0)
_SPACE = Space((_RATE,))


def _population(
    space: Space = _SPACE, *, mode: Literal["max", "min"] = "max", seed: int = 0, **changes: Any
) -> Population:
    return Population(space, SchedulerConfig(name="pbt", **changes), mode=mode, seed=seed)


def _four(population: Population, time: float = 1.0) -> None:
    """Trials 1 to 4, the fourth the best; none was bad when it reported."""
    for number, value in enumerate([0.2, 0.4, 0.6, 0.8], start=1):
        assert population.report(number, time, value) is None


def test_the_worst_quarter_goes_on_from_the_best() -> None:
    population = _population()
    _four(population)
    assert population.report(1, 2, 0.3) == 4  # of 0.3, 0.4, 0.6, 0.8
    assert population.report(2, 2, 0.35) is None  # one of four, and that is still the first
    assert population.report(3, 2, 0.9) is None
    assert population.report(4, 2, 0.7) is None
    assert population.report(1, 3, 0.75) is None
    assert population.report(2, 3, 0.5) == 3  # of 0.5, 0.7, 0.75, 0.9


def test_less_is_better_in_mode_min() -> None:
    population = _population(mode="min")
    for number, value in enumerate([0.2, 0.4, 0.6], start=1):
        population.report(number, 1, value)
    assert population.report(4, 1, 0.8) == 1


def test_the_donor_is_one_of_the_upper_quantile() -> None:
    donors = Counter()
    for seed in range(300):
        population = _population(quantile=0.5, seed=seed)
        _four(population)
        donors[population.report(1, 2, 0.1)] += 1
    assert sorted(donors) == [3, 4]  # type: ignore[type-var]
    assert all(count == pytest.approx(150, abs=40) for count in donors.values())


def test_between_intervals_nothing_is_compared() -> None:
    population = _population(interval=Duration(2, "ep"))
    _four(population, 1)
    assert population.report(1, 1.5, 0.0) is None
    _four(population, 2.0)
    assert population.report(1, 3.9, 0.0) is None
    assert population.report(1, 4.1, 0.0) == 4  # the first report after the interval
    assert population.report(2, 6, -1.0) == 4


def test_an_interval_of_time_is_in_seconds() -> None:
    population = _population(interval=Duration(2, "m"))
    _four(population, 119)
    _four(population, 120)
    assert population.report(1, 239, 0.0) is None
    assert population.report(1, 240, 0.0) == 4


def test_intervals_that_differ_by_rounding_are_one() -> None:
    population = _population(interval=Duration(0.1, "ep"))
    _four(population, 0.2)
    assert population.report(1, 0.3, 0.0) == 4  # 0.3 / 0.1 is below 3 by a rounding


def test_one_alone_and_ties_stay_as_they_are() -> None:
    population = _population()
    assert [population.report(1, time, 0.1) for time in range(1, 5)] == [None] * 4
    assert [population.report(number, 5, 0.1) for number in range(2, 9)] == [None] * 7


@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_finite_is_the_worst_and_never_a_donor(mode: Literal["max", "min"]) -> None:
    population = _population(mode=mode, quantile=0.5)
    assert [population.report(number, 1, math.nan) for number in (1, 2, 3)] == [None] * 3
    assert population.report(4, 1, 0.5) is None
    assert population.report(3, 2, math.inf) == 4  # half of the four, and only one of the better half has a value
    assert population.report(2, 2, 0.1) is None


def test_repetitions_change_nothing() -> None:
    population, other = _population(), _population()
    _four(population)
    _four(other)
    for number, time in [(4, 1), (4, 0.5), (1, 1)]:
        assert population.report(number, time, -1.0) is None
    assert population.report(1, 2, 0.3) == other.report(1, 2, 0.3) == 4


def test_after_an_exploit_the_time_is_the_donors() -> None:
    population = _population()
    _four(population)
    assert population.report(1, 3, 0.3) == 4  # two epochs back
    assert population.report(1, 2, 0.1) == 4  # so this is new, and as bad as before


def test_a_replay_gives_the_same_donors() -> None:
    stream = random.Random(1)
    population, reports = _population(quantile=0.4, seed=3), []
    times = dict.fromkeys(range(1, 9), 0.0)
    for _ in range(300):
        number = stream.choice(sorted(times))
        times[number] += 0.5
        value = math.nan if stream.random() < 0.1 else stream.random()
        donor = population.report(number, times[number], value)
        reports.append((number, times[number], value, donor))
        if donor is not None:
            times[number] = times[donor]
    assert sum(donor is not None for *_, donor in reports) > 20
    again = _population(quantile=0.4, seed=3)
    assert [again.report(number, time, value) for number, time, value, _ in reports] == [item[3] for item in reports]


def _explored(space: Space, chosen: dict[str, Any], count: int = 200, **changes: Any) -> list[dict[str, Any]]:
    population = _population(space, **changes)
    return [population.explore(chosen, 1, index) for index in range(1, count + 1)]


def test_exploring_depends_on_its_arguments_alone() -> None:
    one, other = _population(seed=4), _population(seed=4)
    other.explore({"optim.lr": 0.5}, 7, 7)
    found = one.explore({"optim.lr": 0.1}, 3, 2)
    assert other.explore({"optim.lr": 0.1}, 3, 2) == found
    many = {_population(seed=seed).explore({"optim.lr": 0.1}, number, count)["optim.lr"]
            for seed in (4, 5) for number in (1, 2) for count in (1, 2, 3)}  # fmt: skip
    assert len(many) > 3


def test_numbers_are_multiplied() -> None:
    found = Counter(one["optim.lr"] for one in _explored(_SPACE, {"optim.lr": 0.1}, resample=0.0))
    assert sorted(found) == pytest.approx([0.08, 0.12])
    assert min(found.values()) > 70


def test_numbers_stay_within_their_range() -> None:
    space = Space((Parameter("optim.lr", "uniform", low=1, high=2),))
    assert {one["optim.lr"] for one in _explored(space, {"optim.lr": 1.9}, resample=0.0)} == {1.52, 2.0}
    assert {one["optim.lr"] for one in _explored(space, {"optim.lr": 1}, resample=0.0)} == {1.0, 1.2}


def test_whole_numbers_move_at_least_by_one() -> None:
    space = Space((Parameter("a", "randint", low=1, high=30), Parameter("b", "lograndint", low=1, high=30)))
    found = _explored(space, {"a": 2, "b": 20}, resample=0.0)
    assert {one["a"] for one in found} == {1, 3}
    assert {one["b"] for one in found} == {16, 24}
    assert {one["a"] for one in _explored(space, {"a": 30, "b": 1}, resample=0.0)} == {24, 30}
    below = Space((Parameter("a", "randint", low=-9, high=0),))
    assert {one["a"] for one in _explored(below, {"a": -2}, resample=0.0)} == {-3, -1}


def test_steps_stay_steps() -> None:
    space = Space((Parameter("a", "quniform", low=0.1, high=0.9, step=0.1),))
    assert {one["a"] for one in _explored(space, {"a": 0.3}, resample=0.0)} == {0.2, 0.4}
    assert {one["a"] for one in _explored(space, {"a": 0.9}, resample=0.0)} == {0.7, 0.9}


def test_choices_move_to_a_neighbour() -> None:
    values = ([0.9, 0.999], [0.8, 0.99], [0.5, 0.9], None)
    space = Space((Parameter("optim.args.betas", "choice", values),))
    kinds = [str(one["optim.args.betas"]) for one in _explored(space, {"optim.args.betas": [0.8, 0.99]}, resample=0.0)]
    assert set(kinds) == {str(values[0]), str(values[2])}
    kinds = [str(one["optim.args.betas"]) for one in _explored(space, {"optim.args.betas": None}, resample=0.0)]
    assert set(kinds) == {str(values[2]), "None"}


def test_some_are_drawn_anew() -> None:
    found = [one["optim.lr"] for one in _explored(_SPACE, {"optim.lr": 0.1}, 1000, resample=0.3)]
    anew = [value for value in found if value not in (0.1 * 1.2, 0.1 * 0.8)]
    assert len(anew) == pytest.approx(300, abs=45)
    assert all(1e-3 <= value <= 1 for value in anew)
    assert sum(value < 10**-1.5 for value in anew) == pytest.approx(len(anew) / 2, abs=30)  # as it was drawn at first


def test_values_that_are_not_of_the_space_are_drawn_anew() -> None:
    assert all(1e-3 <= one["optim.lr"] <= 1 for one in _explored(_SPACE, {"optim.lr": 7.0}, 20, resample=0.0))
    assert all(1e-3 <= one["optim.lr"] <= 1 for one in _explored(_SPACE, {}, 20, resample=0.0))


def test_conditional_paths_follow() -> None:
    kind = Parameter("augment.train", "choice", ("none", "flip", "crop"))
    size = Parameter(
        "loss.args.label_smoothing", "uniform", low=0.1, high=0.2, when=(Condition("augment.train", ("crop",)),)
    )
    found = _explored(Space((kind, size)), {"augment.train": "flip"}, resample=0.0)
    assert {one["augment.train"] for one in found} == {"none", "crop"}
    for one in found:
        assert ("loss.args.label_smoothing" in one) == (one["augment.train"] == "crop")
        assert 0.1 <= one.get("loss.args.label_smoothing", 0.1) <= 0.2
    found = _explored(Space((kind, size)), {"augment.train": "crop", "loss.args.label_smoothing": 0.15}, resample=0.0)
    assert {len(one) for one in found} == {1, 2}
