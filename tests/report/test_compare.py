"""The comparison of two runs: McNemar's test and its interval by scipy, the bootstrap by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from raycls.errors import DataError
from raycls.report.compare import accuracy, compare, mcnemar, pair, share_interval
from raycls.report.evaluated import Samples


def _samples(label: list[int], predicted: list[int], *, keys: list[str] | None = None, sure: float = 0.8) -> Samples:
    names = keys or [f"{row}.jpg" for row in range(len(label))]
    right = np.array(label) == np.array(predicted)
    return Samples(
        names,
        names,
        ["cat", "dog", "owl"],
        np.array(label),
        np.array(predicted),
        np.full(len(label), sure),
        np.where(right, sure, (1 - sure) / 2),
    )


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (5, 0), (3, 9), (40, 61), (700, 800), (25_000, 25_600)])
def test_mcnemar_is_scipys_binomial_test(one: int, other: int) -> None:
    oracle = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(oracle, rel=1e-9)


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (1, 2), (13, 40), (350, 1000), (25_000, 50_600)])
@pytest.mark.parametrize("level", [0.95, 0.975])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(hits: int, count: int, level: float) -> None:
    oracle = binomtest(hits, count).proportion_ci(level, "exact")
    assert share_interval(hits, count, level) == pytest.approx((oracle.low, oracle.high), rel=1e-8, abs=1e-12)


def test_accuracy_by_hand() -> None:
    """Ten images: six of both, one that the first one alone has, three that the second one alone has."""
    label = [0] * 10
    first = [0] * 6 + [0, 1, 1, 1]
    second = [0] * 6 + [1, 0, 0, 0]
    found = compare(pair(_samples(label, first), _samples(label, second)))[0]
    assert (found.first, found.second, found.difference) == pytest.approx((0.7, 0.9, 0.2))
    assert found.p == pytest.approx(2 * (1 + 4) / 16)  # at most 1 of 4 fair coins, twice
    oracle = binomtest(3, 4).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx(((2 * oracle.low - 1) * 0.4, (2 * oracle.high - 1) * 0.4))
    assert not found.differs


def test_the_interval_of_accuracy_is_without_0_exactly_where_the_test_says_so() -> None:
    seen = set()
    for lost in range(0, 30, 3):
        for won in range(0, 30, 3):
            first = np.array([True] * lost + [False] * won + [True] * 20)
            second = np.array([False] * lost + [True] * won + [True] * 20)
            for tests in (1, 3):
                found = accuracy(first, second, tests)
                assert found.p is not None
                assert found.differs == (found.p < 0.05), (lost, won)
                assert found.p == pytest.approx(min(1, tests * mcnemar(lost, won)))
                seen.add(found.differs)
    assert seen == {True, False}


def test_equal_runs_differ_in_nothing() -> None:
    draw = np.random.default_rng(0)
    label, predicted = draw.integers(0, 3, (2, 60)).tolist()
    for each in compare(pair(_samples(label, predicted), _samples(label, predicted))):
        assert (each.difference, each.low, each.high, each.differs) == (0, 0, 0, False)


def test_metrics_are_those_of_scikit_learn_and_the_better_run_is_found() -> None:
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(1)
    label = draw.integers(0, 3, 400)
    first, second = (np.where(draw.random(400) < skill, label, draw.integers(0, 3, 400)) for skill in (0.3, 0.9))
    found = {
        each.name: each
        for each in compare(pair(_samples(label.tolist(), first.tolist()), _samples(label.tolist(), second.tolist())))
    }
    assert found["f1_macro"].first == pytest.approx(f1_score(label, first, average="macro"))
    assert found["f1_macro"].second == pytest.approx(f1_score(label, second, average="macro"))
    right = (second == label).mean()
    assert found["nll"].second == pytest.approx(-(right * np.log(0.8) + (1 - right) * np.log(0.1)))
    assert found["ece"].second == pytest.approx(abs(0.8 - right))
    assert all(each.differs and each.low < each.difference < each.high for each in found.values())


def test_images_are_paired_by_their_keys_and_others_are_left_out() -> None:
    first = _samples([0, 1, 2, 0], [0, 1, 0, 0], keys=["a", "b", "c", "only"])
    second = _samples([2, 1, 1], [2, 0, 1], keys=["c", "b", "a"])
    found = pair(first, second)
    assert found.first.keys == found.second.keys == ["c", "b"]  # `a` is a cat for one and a dog for the other
    assert (found.left_out, found.relabelled) == (1, 1)
    assert found.first.right.tolist() == [False, True]
    assert found.second.right.tolist() == [True, False]


def test_classes_are_compared_by_name() -> None:
    second = _samples([0, 1], [0, 0])
    moved = Samples(
        second.keys, second.paths, ["dog", "cat"], 1 - second.label, 1 - second.predicted, *([second.truth] * 2)
    )
    assert len(pair(_samples([0, 1], [0, 1]), moved)) == 2


@pytest.mark.parametrize(
    ("keys", "label", "what"),
    [
        (["x", "y"], [0, 1], "no image in common"),
        (["a", "a"], [0, 1], "same key"),
        (["a", "b"], [1, 0], "another class"),
    ],
)
def test_what_cannot_be_paired_is_an_error(keys: list[str], label: list[int], what: str) -> None:
    with pytest.raises(DataError, match=what):
        pair(_samples([0, 1], [0, 1], keys=["a", "b"]), _samples(label, label, keys=keys))
