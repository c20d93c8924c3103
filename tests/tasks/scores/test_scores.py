"""Metrics of rows against scikit-learn and torchmetrics: 50 random sets with ties, missing classes and one class."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from raycls.tasks.scores.calibration import calibration
from raycls.tasks.scores.probabilities import Probabilities
from raycls.tasks.scores.ranking import Ranked, rank

_SETS = 50


@cache
def _set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[N, C]` and labels: every second set has ties, every third a class without rows, each tenth one class."""
    draw = np.random.default_rng(seed)
    count, size = int(draw.integers(5, 80)), int(draw.choice([2, 3, 4, 7, 12]))
    labels = draw.integers(0, size, count)
    if seed % 3 == 0:
        labels[labels == size - 1] = 0
    if seed % 10 == 0:
        labels[:] = draw.integers(0, size)
    logits = draw.normal(0, 2, (count, size))
    logits[np.arange(count), labels] += draw.uniform(0, 3)
    if seed % 2 == 0:  # a grid on which the rows of a class and of the others meet
        logits = np.round(logits)
        logits[: count // 2] = logits[count // 2 : 2 * (count // 2)]
    return logits.astype(np.float32), labels


def _probabilities(logits: np.ndarray) -> np.ndarray:
    probabilities = Probabilities(logits)
    return np.stack([probabilities.column(label) for label in range(logits.shape[1])], axis=1)


def _ranked(seed: int) -> tuple[Ranked, np.ndarray, np.ndarray]:
    logits, labels = _set(seed)
    return rank(Probabilities(logits).column, labels, logits.shape[1]), _probabilities(logits), labels


@pytest.mark.parametrize("seed", range(_SETS))
def test_probabilities_are_those_of_torch(seed: int) -> None:
    logits, _ = _set(seed)
    expected = torch.from_numpy(logits).double().softmax(1).numpy()
    np.testing.assert_allclose(_probabilities(logits), expected, rtol=1e-13)


@pytest.mark.parametrize("seed", range(_SETS))
def test_ranking_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    ranked, probabilities, labels = _ranked(seed)
    size = probabilities.shape[1]
    known = [label for label in range(size) if 0 < (labels == label).sum() < len(labels)]
    assert ranked.classes == len(known)
    if not known:
        assert ranked.macro == ranked.weighted == {"auroc": None, "average_precision": None}
        return
    columns, weights = np.eye(size)[labels][:, known], [(labels == label).sum() for label in known]
    scores = probabilities[:, known]
    for name, oracle in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        assert [ranked.per_class[name][label] is not None for label in range(size)] == [
            label in known for label in range(size)
        ]
        each = oracle(columns, scores, average=None) if len(known) > 1 else [oracle(columns[:, 0], scores[:, 0])]
        assert ranked.macro[name] == pytest.approx(np.mean(each), rel=1e-12)
        assert ranked.weighted[name] == pytest.approx(np.average(each, weights=weights), rel=1e-12)


@pytest.mark.parametrize("seed", range(_SETS))
def test_ranking_is_that_of_torchmetrics(seed: int) -> None:
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    ranked, probabilities, labels = _ranked(seed)
    oracles = {"auroc": binary_auroc, "average_precision": binary_average_precision}
    for label in range(probabilities.shape[1]):
        positive, scores = torch.from_numpy(labels == label).int(), torch.from_numpy(probabilities[:, label])
        for name, oracle in oracles.items():
            found = ranked.per_class[name][label]
            if found is not None:
                assert found == pytest.approx(oracle(scores, positive).item(), abs=1e-6)  # it computes in float32


def test_an_absent_class_is_left_out_where_torchmetrics_counts_0() -> None:
    from torchmetrics.functional.classification import multiclass_auroc

    logits = np.array([[4, 1, 0], [5, 0, 0], [0, 3, 0], [1, 6, 0]], np.float32)
    labels = np.array([0, 0, 1, 1])
    with pytest.warns(UserWarning, match="No positive samples"):
        theirs = multiclass_auroc(torch.from_numpy(logits).softmax(1), torch.from_numpy(labels), num_classes=3)
    assert theirs.item() == pytest.approx(2 / 3)
    assert rank(Probabilities(logits).column, labels, 3).macro["auroc"] == 1.0


@pytest.mark.parametrize("seed", range(_SETS))
def test_calibration_is_that_of_scikit_learn_and_torchmetrics(seed: int) -> None:
    from sklearn.metrics import brier_score_loss, log_loss
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = _set(seed)
    found, size = calibration(Probabilities(logits), labels), logits.shape[1]
    every, tensor = _probabilities(logits), torch.from_numpy(logits).double().softmax(1)
    assert found["nll"] == pytest.approx(log_loss(labels, every, labels=range(size)), rel=1e-9)
    brier = np.square(every - np.eye(size)[labels]).sum(1).mean()
    assert found["brier"] == pytest.approx(brier, rel=1e-12)
    if len(set(labels.tolist())) == size:
        theirs = brier_score_loss(labels, every, scale_by_half=False)
        assert found["brier"] == pytest.approx(theirs, rel=1e-12)
    assert sum(each["count"] for each in found["bins"]) == len(labels)
    sure = (logits == logits.max(1, keepdims=True)).sum(1) == 1  # which of tied classes is predicted is open
    ours = calibration(Probabilities(logits[sure]), labels[sure])["ece"]
    theirs = multiclass_calibration_error(tensor[sure], torch.from_numpy(labels[sure]), num_classes=size, n_bins=15)
    assert ours == pytest.approx(theirs.item(), abs=1e-6)


def test_the_error_of_calibration_by_hand() -> None:
    # two rows of 0.75 (one right) and one of 0.6 (right): (2/3)|0.75 - 0.5| + (1/3)|0.6 - 1|
    logits = np.log(np.array([[0.75, 0.25], [0.25, 0.75], [0.6, 0.4]])).astype(np.float32)
    found = calibration(Probabilities(logits), np.array([0, 0, 0]))
    assert found["ece"] == pytest.approx(0.5 / 3 + 0.4 / 3, rel=1e-6)
    assert [each["count"] for each in found["bins"] if each["count"]] == [1, 2]


def test_rows_in_blocks_are_those_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = _set(7)
    whole = calibration(Probabilities(logits), labels), Probabilities(logits).predicted.tolist()
    monkeypatch.setattr("raycls.tasks.scores.probabilities._BLOCK_VALUES", 5)
    assert (calibration(Probabilities(logits), labels), Probabilities(logits).predicted.tolist()) == whole
