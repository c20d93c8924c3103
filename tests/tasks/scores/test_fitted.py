"""A temperature and a threshold: what they are by an oracle, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raycls.tasks.scores.calibration import calibration, fit_temperature
from raycls.tasks.scores.probabilities import Probabilities
from raycls.tasks.scores.threshold import at_threshold, fit_threshold, read_rule


def _overconfident(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose classes are drawn from their own softmax, then scaled: the right temperature is about `scale`."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (4000, 5))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) > draw.random((4000, 1))).argmax(1)
    return (logits * scale).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 12.0])
def test_the_temperature_is_that_of_an_optimizer(scale: float) -> None:
    logits, labels = _overconfident(0, scale)
    found = fit_temperature(logits, labels)
    inverse = torch.tensor(1 / scale, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(torch.from_numpy(logits).double() * inverse, torch.from_numpy(labels))
        value.backward()
        return value

    optimizer.step(loss)
    assert found == pytest.approx(1 / inverse.item(), rel=1e-5)
    assert found == pytest.approx(scale, rel=0.1)
    before, after = (calibration(Probabilities(logits, value), labels) for value in (1.0, found))
    assert after["nll"] <= before["nll"]


def test_there_is_no_temperature_where_every_row_is_right_or_nothing_is_said() -> None:
    labels = np.array([0, 1, 2])
    assert fit_temperature(np.eye(3, dtype=np.float32), labels) is None
    assert fit_temperature(np.zeros((3, 3), np.float32), labels) is None
    assert fit_temperature(-np.eye(3, dtype=np.float32), labels) is None  # worse than a guess at any temperature


def _scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    positive = draw.random(60) < 0.4
    return positive, np.clip(np.round(draw.normal(0.4, 0.2, 60) + 0.2 * positive, 2), 0.01, 0.99)


def _f1(positive: np.ndarray, called: np.ndarray) -> float:
    return 2 * (positive & called).sum() / (positive.sum() + called.sum())


@pytest.mark.parametrize("seed", range(10))
def test_no_other_threshold_is_better(seed: int) -> None:
    positive, scores = _scores(seed)
    every = np.append(np.unique(scores), 1.0)
    best = fit_threshold(read_rule("max-f1"), positive, scores)
    assert _f1(positive, scores >= best) == pytest.approx(max(_f1(positive, scores >= cut) for cut in every))
    youden = fit_threshold(read_rule("youden"), positive, scores)

    def gain(cut: float) -> float:
        return (scores[positive] >= cut).mean() - (scores[~positive] >= cut).mean()

    assert gain(youden) == pytest.approx(max(map(gain, every)))
    wanted = fit_threshold(read_rule("recall=0.9"), positive, scores)
    assert (scores[positive] >= wanted).mean() >= 0.9
    assert (scores[positive] >= every[every > wanted][1]).mean() < 0.9 or (every > wanted).sum() < 2


def test_a_threshold_lies_between_two_scores() -> None:
    positive, scores = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.6, 0.9])
    assert fit_threshold(read_rule("max-f1"), positive, scores) == pytest.approx(0.4)
    assert fit_threshold(read_rule("youden"), positive, scores) == pytest.approx(0.4)
    assert fit_threshold(read_rule("recall=0.4"), positive, scores) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="one class"):
        fit_threshold(read_rule("max-f1"), np.ones(4, bool), scores)


@pytest.mark.parametrize(
    "text", ["0", "1", "1.5", "-0.1", "nan", "recall", "recall=0", "recall=1", "f1=0.5", "", "max"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError):
        read_rule(text)


def test_a_threshold_is_worth_what_scikit_learn_says() -> None:
    from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

    positive, scores = _scores(3)
    found, called = at_threshold(0.5, positive, scores), scores >= 0.5
    for name, oracle in (
        ("accuracy", accuracy_score),
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
    ):
        assert found[name] == pytest.approx(oracle(positive, called))
        assert found["intervals"][name]["low"] < found[name] < found["intervals"][name]["high"]
    assert found["specificity"] == pytest.approx(recall_score(~positive, ~called))
    assert found["true_positive"] + found["false_negative"] == positive.sum()
    nothing = at_threshold(0.999, positive, scores)
    assert nothing["precision"] is None and nothing["f1"] == 0.0
