from __future__ import annotations

import math
import random
from typing import Any

import pytest

from raycls.report.plots.importance import Importance, comparable, importances
from raycls.search.trials import Exploit, Result, Trial


def trial(number: int, chosen: dict[str, Any], values: list[float], state: str = "finished", **rest: Any) -> Trial:
    """A trial with a top1 after each of its epochs."""
    results = [Result(epoch, float(epoch), 1.0, {"top1": value}) for epoch, value in enumerate(values, start=1)]
    facts: dict[str, Any] = {"phase": "search", "seed": None, "of": None, "asked": 10.0, "steps_per_epoch": 1, **rest}
    return Trial(
        f"{number:04d}", number, chosen=chosen, first_chosen=chosen, results=results, state=state, ended=True, **facts
    )


def searched(count: int) -> list[Trial]:
    """The value is 10 a + b, whatever c is: a and b are uniform, so that the variances are as 100 to 1."""
    generator = random.Random(3)
    found = []
    for number in range(1, count + 1):
        a, b, c = generator.random(), generator.random(), generator.choice(["x", "y", "z"])
        found.append(trial(number, {"a": a, "b": b, "c": c}, [10 * a + b]))
    return found


def named(found: list[Importance]) -> dict[str, Importance]:
    return {item.path: item for item in found}


def test_what_matters_is_told_from_what_does_not() -> None:
    found, why = importances(searched(60), ["c", "b", "a"], "top1")
    assert why == ""
    assert found[0].path == "a"
    items = named(found)
    # Shuffling all that matters doubles the variance: the error is that of two independent values.
    assert 1.0 < items["a"].mean < 3.0
    assert abs(items["c"].mean) < 0.05 and abs(items["b"].mean) < 0.2
    for item in found:
        assert item.low <= item.mean <= item.high
    assert items["a"].low > items["c"].high


def test_fewer_trials_are_less_certain() -> None:
    few, _ = importances(searched(12), ["a"], "top1", refits=10)
    many, _ = importances(searched(60), ["a"], "top1", refits=10)
    spreads = [named(found)["a"].high - named(found)["a"].low for found in (few, many)]
    assert spreads[0] > spreads[1] > 0


def test_equal_trials_give_equal_numbers() -> None:
    assert importances(searched(12), ["a"], "top1", refits=2) == importances(searched(12), ["a"], "top1", refits=2)


def test_an_inactive_path_stays_inactive() -> None:
    # b exists where a is "on", and then it alone decides; where a is "off", the value is that of the middle.
    generator = random.Random(5)
    trials = []
    for number in range(1, 61):
        b = generator.random()
        on = number % 2 == 0
        chosen = {"a": "on", "b": b} if on else {"a": "off"}
        trials.append(trial(number, chosen, [b if on else 0.5]))
    found, _ = importances(trials, ["a", "b"], "top1", refits=8)
    assert found[0].path == "b" and found[0].mean > 0.3
    assert abs(named(found)["a"].mean) < 0.2


def test_null_is_a_choice_like_any_other() -> None:
    trials = [trial(number, {"a": None if number % 2 else 0.1}, [float(number % 2)]) for number in range(1, 31)]
    found, _ = importances(trials, ["a"], "top1", refits=4)
    assert found[0].mean > 1.0


@pytest.mark.parametrize(
    ("trials", "paths", "why"),
    [
        (searched(9), ["a"], "it needs 10 trials that ended with a top1, there are 9"),
        (searched(20), [], "nothing was searched"),
        ([trial(number, {"a": number}, [0.5]) for number in range(20)], ["a"], "all trials gave the same top1"),
        (
            [*searched(20), trial(21, {"a": 1.0}, [0.5], exploits=[Exploit("0001", 1, {"a": 2.0})])],
            ["a"],
            "the values of a trial changed while it ran",
        ),
    ],
)
def test_why_there_are_none(trials: list[Trial], paths: list[str], why: str) -> None:
    assert importances(trials, paths, "top1") == ([], why)


def test_values_are_compared_at_the_last_epoch_that_all_reached() -> None:
    trials = [
        trial(1, {}, [0.1, 0.2, 0.3, 0.4]),
        trial(2, {}, [0.5, 0.6], state="stopped"),
        trial(3, {}, [0.7, 0.8, math.nan]),
        trial(4, {}, [0.9], state="failed"),
        trial(5, {}, [0.9], state="running"),
        trial(6, {}, []),
        trial(7, {}, [0.9], phase="confirm"),
        trial(8, {}, [0.9, math.nan]),
    ]
    epoch, pairs = comparable(trials, "top1")
    assert epoch == 2.0
    assert [(item.number, value) for item, value in pairs] == [(1, 0.2), (2, 0.6), (3, 0.8)]
    assert comparable(trials, "loss") == (0.0, [])
