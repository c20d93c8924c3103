from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from raycls.run.storage.store import Store
from raycls.search.confirm import Summary, pair, paired, repeats, scores, summarise, t_quantile
from raycls.search.trials import TrialLog, trial_id


@pytest.mark.parametrize("freedom", [*range(1, 41), 99, 1000, 10**6])
def test_quantiles_are_those_of_scipy_to_four_decimals(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-5)


def test_one_value_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(0)


def test_summary_of_three_values_worked_out_by_hand() -> None:
    # mean 0.8, deviation 0.1, t(0.975, 2) = 4.302653: half of the interval is 4.302653 * 0.1 / sqrt(3) = 0.248414
    found = summarise([0.7, 0.8, 0.9])
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(0.8))
    assert (found.low, found.high) == (pytest.approx(0.551586, abs=1e-6), pytest.approx(1.048414, abs=1e-6))


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert summarise([0.5]) == Summary(1, 0.5, -math.inf, math.inf)
    assert summarise([]) is None


def test_the_difference_is_taken_seed_by_seed() -> None:
    # Seeds differ widely, the two candidates never by anything but 0.01: the interval is a point.
    first, second = {1: 0.51, 2: 0.91, 3: 0.71, 9: 0.0}, {3: 0.70, 2: 0.90, 1: 0.50, 8: 1.0}
    found = paired(first, second)
    assert found is not None and found.n == 3
    assert found.mean == pytest.approx(0.01)
    assert found.high - found.low < 1e-12
    assert paired({1: 0.5}, {2: 0.5}) is None


def test_interval_agrees_with_scipy() -> None:
    first, second = {1: 0.91, 2: 0.93, 3: 0.90, 4: 0.95}, {1: 0.90, 2: 0.94, 3: 0.87, 4: 0.91}
    oracle = stats.ttest_rel(list(first.values()), list(second.values())).confidence_interval(0.95)
    found = paired(first, second)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))


def test_scores_come_from_the_repeats_that_were_scored(tmp_path: Path) -> None:
    ledger = TrialLog(Store(tmp_path))
    for number in (1, 2):
        ledger.add_trial(trial_id(number), number=number, chosen={}, asked=1, steps_per_epoch=1)
    for seed, number, top1 in ((3, 2, 0.7), (1, 2, 0.8), (2, 2, math.nan), (1, 1, 0.6)):
        name = trial_id(number, seed)
        ledger.add_trial(
            name, number=number, phase="confirm", of=trial_id(number), seed=seed, chosen={}, asked=1, steps_per_epoch=1
        )
        ledger.test(name, values={"top1": top1})
    ledger.add_trial(
        "0001-s4", number=1, phase="confirm", of="0001", seed=4, chosen={}, asked=1, steps_per_epoch=1
    )  # not scored
    assert scores(ledger, "0002", "top1") == {1: 0.8, 3: 0.7}
    assert scores(ledger, "0001", "top1") == {1: 0.6}
    assert scores(ledger, "0001", "loss") == {}
    assert [trial.id for trial in repeats(ledger, "0002")] == ["0002-s1", "0002-s2", "0002-s3"]


def test_the_pair_is_the_winner_of_now(tmp_path: Path) -> None:
    """Trials that come later can win: then they are the ones that are trained again."""
    ledger = TrialLog(Store(tmp_path))
    assert pair(ledger, "top1", "max") == []
    for number, top1, state in ((1, 0.6, "finished"), (2, 0.9, "failed"), (3, 0.5, "stopped"), (4, 0.8, "finished")):
        ledger.add_trial(trial_id(number), number=number, chosen={}, asked=1, steps_per_epoch=1)
        ledger.result(trial_id(number), step=1, epoch=1, seconds=1, values={"top1": top1})
        ledger.end(trial_id(number), state=state, epochs=1, seconds=1)
        expected = {1: ["0001"], 2: ["0001"], 3: ["0001", "0003"], 4: ["0004", "0001"]}[number]
        assert [trial.id for trial in pair(ledger, "top1", "max")] == expected
