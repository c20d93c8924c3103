"""The metrics of any number of labels, from histograms: those of scikit-learn on the same binned scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from raycls.tasks.scores.multilabel import (
    BINS,
    HALF,
    LOWEST,
    PER_UNIT,
    at_thresholds,
    histogram_of,
    mean_average_precision,
    sigmoid,
    summarise,
    unfitted,
)

CLASSES = ("a", "b", "c")


def _histogram(bins: np.ndarray, there: np.ndarray) -> np.ndarray:
    found = np.zeros((bins.shape[1], 2, BINS), np.int64)
    for row in range(len(bins)):
        for column in range(bins.shape[1]):
            found[column, int(there[row, column]), bins[row, column]] += 1
    return found


@pytest.mark.parametrize("seed", range(10))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    random = np.random.RandomState(seed)
    there = random.rand(60, 3) < (0.5, 0.2, 0.05)
    there[0] = True
    spread = (1, 30, 400)[seed % 3]  # from many ties to none
    bins = (HALF + there * 5 + random.randn(60, 3) * spread).round().clip(0, BINS - 1).astype(int)
    predicted = bins >= HALF
    summary = summarise(_histogram(bins, there), int((predicted == there).all(1).sum()), 30.0, CLASSES)
    assert (summary["count"], summary["loss"]) == (60, 0.5)
    average = [average_precision_score(there[:, column], bins[:, column]) for column in range(3)]
    assert [summary["per_class"][name]["average_precision"] for name in CLASSES] == pytest.approx(average)
    assert summary["map"] == pytest.approx(np.mean(average))
    assert summary["f1_macro"] == pytest.approx(f1_score(there, predicted, average="macro", zero_division=0))
    assert summary["f1_micro"] == pytest.approx(f1_score(there, predicted, average="micro", zero_division=0))
    assert summary["exact"] == pytest.approx((predicted == there).all(1).mean())
    for column, name in enumerate(CLASSES):
        found, truth = summary["per_class"][name], (there[:, column], predicted[:, column])
        assert found["support"] == there[:, column].sum()
        assert found["precision"] == pytest.approx(precision_score(*truth, zero_division=0))
        assert found["recall"] == pytest.approx(recall_score(*truth, zero_division=0))
        edges = 1 / (1 + np.exp(-(LOWEST + bins[:, column] / PER_UNIT)))
        scores = [f1_score(there[:, column], edges >= edge, zero_division=0) for edge in np.unique(edges)]
        assert found["f1_at_best_threshold"] == pytest.approx(max(scores))
        at_it = f1_score(there[:, column], edges >= found["best_threshold"] - 1e-12, zero_division=0)
        assert at_it == pytest.approx(max(scores))


def test_a_class_without_an_image_is_in_no_mean() -> None:
    bins = np.array([[HALF, 0, HALF - 1], [HALF - 1, 0, HALF]])
    there = np.array([[True, False, False], [False, False, True]])
    summary = summarise(_histogram(bins, there), 2, 0.0, CLASSES)
    assert (summary["map"], summary["map_classes"], summary["f1_macro"], summary["exact"]) == (1.0, 2, 1.0, 1.0)
    assert summary["per_class"]["b"] == {
        "support": 0,
        "average_precision": None,
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "best_threshold": 0.5,
        "f1_at_best_threshold": 0.0,
    }
    assert unfitted(summary["per_class"]) == ("b",)


def test_nothing_at_all() -> None:
    summary = summarise(np.zeros((2, 2, BINS), np.int64), 0, 0.0, ("a", "b"))
    assert (summary["count"], summary["map"], summary["f1_micro"]) == (0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_exact_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.RandomState(seed)
    there = random.rand(50, 4) < (0.5, 0.2, 0.05, 0.0)
    there[0, :3] = True
    scores = random.randn(50, 4).round(seed % 3)  # from many ties to few
    wanted = np.mean([average_precision_score(there[:, column], scores[:, column]) for column in range(3)])
    assert mean_average_precision(scores, there) == pytest.approx(wanted)
    assert mean_average_precision(scores, np.zeros_like(there)) == 0.0


def test_histograms_of_logits() -> None:
    logits = np.array([[0.0, -0.01], [1 / 32, 99.0], [-99.0, 15.99]], np.float32)
    there = np.array([[True, False], [False, True], [True, False]])
    found = histogram_of(logits, there)
    wanted = np.zeros((2, 2, BINS), np.int64)
    wanted[0, 1, HALF] = wanted[0, 0, HALF + 1] = wanted[0, 1, 0] = 1
    wanted[1, 0, HALF - 1] = wanted[1, 1, BINS - 1] = wanted[1, 0, BINS - 1] = 1
    np.testing.assert_array_equal(found, wanted)


def test_thresholds_of_the_bins_give_their_f1_by_probabilities_too() -> None:
    random = np.random.RandomState(1)
    logits = (random.randn(300, 3) * 3).astype(np.float32)
    logits[:100] = np.round(logits[:100] * PER_UNIT) / PER_UNIT  # on the edges of bins
    there = random.rand(300, 3) < sigmoid(logits)
    whole = summarise(histogram_of(logits, there), 0, 0.0, CLASSES)["per_class"]
    values = np.array([whole[name]["best_threshold"] for name in CLASSES])
    found = at_thresholds(sigmoid(logits), there, values, CLASSES)
    predicted = sigmoid(logits) >= values
    for column, name in enumerate(CLASSES):
        assert found["per_class"][name]["f1"] == pytest.approx(whole[name]["f1_at_best_threshold"])
        assert found["per_class"][name]["precision"] == precision_score(there[:, column], predicted[:, column])
        assert found["per_class"][name]["recall"] == recall_score(there[:, column], predicted[:, column])
    assert found["f1_macro"] == pytest.approx(f1_score(there, predicted, average="macro"))
    assert found["f1_micro"] == pytest.approx(f1_score(there, predicted, average="micro"))
    assert found["exact"] == (predicted == there).all(1).mean()


def test_sigmoid_of_extremes() -> None:
    found = sigmoid(np.array([-1000.0, -20.0, 0.0, 20.0, 1000.0], np.float32))
    assert found.tolist() == pytest.approx([0.0, 1 / (1 + np.exp(20)), 0.5, 1 / (1 + np.exp(-20)), 1.0], rel=1e-15)
    assert found[2] == 0.5  # from which on a class is predicted
