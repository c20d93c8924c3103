"""The comparison of two runs: McNemar's test and its interval by scipy, the bootstrap by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from raycls.errors import DataError
from raycls.report.compare import accuracy, compare, difference_interval, mcnemar, pair
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


@pytest.mark.parametrize(("won", "lost", "count"), [(9, 3, 40), (0, 7, 30), (5, 0, 5), (1, 1, 1000), (0, 0, 20)])
@pytest.mark.parametrize("level", [0.95, 0.975])
def test_the_interval_ends_where_the_score_test_turns(won: int, lost: int, count: int, level: float) -> None:
    """The likeliest share of `lost` with a given difference is looked for among many, not computed."""

    def score(difference: float) -> float:
        share = np.linspace(max(0, -difference), min(1, (1 - difference) / 2), 200_001)[1:-1]
        likelihood = won * np.log(share + difference) + lost * np.log(share)
        likelihood += (count - won - lost) * np.log1p(-2 * share - difference)
        best = share[likelihood.argmax()]
        return (won - lost - count * difference) / np.sqrt(count * (2 * best + difference - difference**2))

    low, high = difference_interval(won, lost, count, level)
    limit = norm.ppf((1 + level) / 2)
    assert -1 <= low <= (won - lost) / count <= high <= 1
    for end, sign in ((low, 1), (high, -1)):
        if abs(end) < 0.999:
            assert score(end) == pytest.approx(sign * limit, abs=2e-3)


@pytest.mark.parametrize(("won", "lost"), [(0.1, 0.1), (0.3, 0.02), (0.6, 0.0)])
def test_the_interval_holds_the_difference_about_as_often_as_it_says(won: float, lost: float) -> None:
    draw = np.random.default_rng(0)
    counts = draw.multinomial(60, [won, lost, 1 - won - lost], 1500)
    intervals = [difference_interval(int(more), int(less), 60) for more, less, _ in counts]
    assert 0.93 < np.mean([low <= won - lost <= high for low, high in intervals]) < 0.98


def test_accuracy_by_hand() -> None:
    """Ten images: six of both, one that the first one alone has, three that the second one alone has."""
    label = [0] * 10
    first = [0] * 6 + [0, 1, 1, 1]
    second = [0] * 6 + [1, 0, 0, 0]
    found = compare(pair(_samples(label, first), _samples(label, second)))[0]
    assert (found.first, found.second, found.difference) == pytest.approx((0.7, 0.9, 0.2))
    assert found.p == pytest.approx(2 * (1 + 4) / 16)  # at most 1 of 4 fair coins, twice
    assert (found.low, found.high) == pytest.approx(difference_interval(3, 1, 10))
    assert found.low < 0 < found.high
    assert not found.differs


def test_the_interval_of_accuracy_is_without_0_exactly_where_the_test_says_so() -> None:
    seen = set()
    for lost in range(0, 30, 2):
        for won in range(0, 30, 2):
            first = np.array([True] * lost + [False] * won + [True] * 20)
            second = np.array([False] * lost + [True] * won + [True] * 20)
            for tests in (1, 3):
                found = accuracy(first, second, tests)
                assert found.p is not None
                assert found.differs == (found.p < 0.05) == (not found.low <= 0 <= found.high), (lost, won)
                assert found.p == pytest.approx(min(1, tests * mcnemar(lost, won)))
                seen.add(found.differs)
    assert seen == {True, False}


def test_equal_runs_differ_in_nothing() -> None:
    draw = np.random.default_rng(0)
    label, predicted = draw.integers(0, 3, (2, 60)).tolist()
    for each in compare(pair(_samples(label, predicted), _samples(label, predicted))):
        assert (each.difference, each.differs) == (0, False)
        assert each.low == pytest.approx(-each.high)
        assert (each.high > 0) == (each.name == "top1")  # 60 images cannot show that no other image tells them apart


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
