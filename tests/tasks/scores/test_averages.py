"""Standard errors of averages over classes: by hand, by scikit-learn without each row, and how often they are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from raycls.tasks.scores.averages import averages
from raycls.tasks.scores.intervals import jackknife
from raycls.tasks.scores.threshold import at_threshold

_NAMES = ("precision", "recall", "f1")


def _scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    found = {}
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        found |= {f"{name}_{average}": float(value) for name, value in zip(_NAMES, values[:3], strict=True)}
    return found


def test_three_rows_by_hand() -> None:
    """Recall is 1/2 and 1; without the first row 0 and 1, without the second 1 and 1, without the third 1/2 and 0."""
    value, deviation = averages(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)["recall_macro"]
    assert value == 0.75
    mean = (0.5 + 1 + 0.25) / 3
    squares = (0.5 - mean) ** 2 + (1 - mean) ** 2 + (0.25 - mean) ** 2
    assert deviation == pytest.approx(math.sqrt(2 / 3 * squares), rel=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_that_of_scikit_learn_without_each_row(seed: int) -> None:
    """With classes of one row, classes that are predicted alone, and classes that do not occur."""
    draw = np.random.default_rng(seed)
    count, size = int(draw.integers(2, 25)), int(draw.integers(2, 9))
    labels, predicted = draw.integers(0, size, count), draw.integers(0, size, count)
    predicted = np.where(draw.random(count) < 0.5, labels, predicted)
    found, own = averages(labels, predicted, size + 1), _scores(labels, predicted)
    without = [_scores(np.delete(labels, row), np.delete(predicted, row)) for row in range(count)]
    assert found.keys() == own.keys()
    for name, (value, deviation) in found.items():
        each = np.array([scores[name] for scores in without])
        assert value == pytest.approx(own[name], rel=1e-12, abs=1e-12)
        assert deviation == pytest.approx(math.sqrt((count - 1) * each.var()), rel=1e-9, abs=1e-12)


def test_one_row_has_no_error_that_could_be_told() -> None:
    assert averages(np.array([1]), np.array([1]), 2)["f1_macro"] == (1.0, 0.0)


@pytest.mark.parametrize(("size", "per_class"), [(3, 5), (10, 3), (10, 20)])
def test_intervals_hold_as_often_as_they_say(size: int, per_class: int) -> None:
    """Of rows that are drawn from a known confusion matrix, whose own averages the intervals have to take in."""
    draw, repeats = np.random.default_rng(0), 300
    right = np.linspace(0.5, 0.95, size)
    chances = np.where(np.eye(size, dtype=bool), right[:, None], ((1 - right) / (size - 1))[:, None]) / size
    hits, truth, guessed = np.diag(chances), chances.sum(1), chances.sum(0)
    true = {"precision": hits / guessed, "recall": hits / truth, "f1": 2 * hits / (truth + guessed)}
    held = dict.fromkeys((f"{name}_{average}" for name in true for average in ("macro", "weighted")), 0)
    for _ in range(repeats):
        cells = draw.choice(size * size, size * per_class, p=chances.ravel())
        for name, (value, deviation) in averages(cells // size, cells % size, size).items():
            ends = jackknife(value, deviation)
            assert ends["low"] <= value <= ends["high"]
            metric = name.partition("_")[0]
            held[name] += ends["low"] <= true[metric].mean() <= ends["high"]  # all classes are as frequent
    # 0.95 but for the noise of 300 repeats, 0.013; a bootstrap takes in precision_weighted in 0.77 of the first case
    assert all(0.89 < count / repeats <= 1 for count in held.values()), held
    assert sum(held.values()) / (6 * repeats) == pytest.approx(0.95, abs=0.025)


def test_f1_at_a_threshold_without_each_row() -> None:
    draw = np.random.default_rng(2)
    positive, scores = draw.random(30) < 0.4, draw.random(30)
    found = at_threshold(0.5, positive, scores)
    each = np.array([f1_score(np.delete(positive, row), np.delete(scores, row) >= 0.5) for row in range(30)])
    expected = jackknife(f1_score(positive, scores >= 0.5), math.sqrt(29 * each.var()))
    assert found["intervals"]["f1"] == pytest.approx(expected)
