"""The front of accuracy against operations: by hand, with ties, and against a comparison of all pairs."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from raycls.run.storage.store import Store
from raycls.search.front import Priced, front, priced, write_front
from raycls.search.trials import TrialLog, trial_id


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLog:
    return TrialLog(Store(tmp_path / "search"))


def points(ledger: TrialLog, found: list[tuple[int, float]]) -> list[Priced]:
    """A point per (operations, value)."""
    made: list[Priced] = []
    for number, (flops, value) in enumerate(found, start=1):
        name = trial_id(number)
        trial = ledger.add_trial(name, number=number, chosen={"a": flops, "b": [1, 2]}, asked=4, steps_per_epoch=5)
        ledger.result(name, step=5, epoch=1, seconds=1, values={"top1": value})
        ledger.end(name, state="finished", epochs=4, seconds=1)
        made.append(Priced(trial, 10 * flops, flops, value))
    return made


def numbers(found: list[Priced]) -> list[int]:
    return [point.trial.number for point in found]


def test_ties_by_hand(ledger: TrialLog) -> None:
    found = points(
        ledger,
        [
            (300, 0.9),
            (100, 0.5),
            (100, 0.6),  # as cheap as the one before, and better
            (200, 0.6),  # no better than that, and dearer
            (300, 0.9),  # equal in both
            (250, 0.55),  # worse and dearer
            (400, 0.9),  # as good as one that is cheaper
            (500, 0.91),
        ],
    )
    assert numbers(front(found, "max")) == [3, 1, 5, 8]
    assert numbers(front(found, "min")) == [2]  # the cheapest is the lowest, too
    assert front([], "max") == []
    assert numbers(front(found[:1], "min")) == [1]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_as_a_comparison_of_all_pairs(ledger: TrialLog, mode: str) -> None:
    drawn = random.Random(0)
    found = points(ledger, [(drawn.randrange(1, 12), drawn.randrange(1, 12) / 10) for _ in range(60)])

    def dominates(one: Priced, other: Priced) -> bool:
        better, worse = (one.value, other.value) if mode == "max" else (other.value, one.value)
        return one.flops <= other.flops and better >= worse and (one.flops < other.flops or better > worse)

    expected = {item.trial.id for item in found if not any(dominates(other, item) for other in found)}
    assert {item.trial.id for item in front(found, mode)} == expected
    flops = [item.flops for item in front(found, mode)]
    assert flops == sorted(flops)


def test_trials_without_a_value_or_a_cost_are_left_out(ledger: TrialLog) -> None:
    points(ledger, [(100, 0.5), (200, math.nan), (300, 0.7)])
    ledger.add_trial("0004", number=4, chosen={"a": 400}, asked=4, steps_per_epoch=5)
    ledger.end("0004", state="failed", epochs=0, seconds=1, error="no memory")
    found, uncounted = priced(ledger, "top1", "max", lambda chosen: None if chosen["a"] == 300 else (7, chosen["a"]))
    assert [(item.trial.id, item.parameters, item.flops, item.value) for item in found] == [("0001", 7, 100, 0.5)]
    assert uncounted == 1


def test_file(ledger: TrialLog, tmp_path: Path) -> None:
    write_front(Store(tmp_path), points(ledger, [(100, 0.5)]), ["a", "b", "absent"], "top1")
    assert (tmp_path / "front.csv").read_text() == (
        'trial,state,epochs,parameters,flops,top1,a,b,absent\n0001,finished,4,1000,100,0.5,100,"[1, 2]",\n'
    )
