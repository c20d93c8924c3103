"""Metrics against scikit-learn, and against figures worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from raycls.errors import ConfigError
from raycls.tasks.metrics import check_metric, flat, summarise


def test_a_class_that_is_neither_there_nor_predicted_is_in_no_mean() -> None:
    # a and b without an error; no row of c, and none taken for one
    summary = summarise(np.diag([6, 6, 0]), 1.0, 12, ["a", "b", "c"])
    assert [summary[name]["macro"] for name in ("precision", "recall", "f1")] == [1.0, 1.0, 1.0]
    assert (summary["macro_classes"], summary["support"]) == (2, {"a": 6, "b": 6, "c": 0})
    assert summary["f1"]["per_class"] == {"a": 1.0, "b": 1.0, "c": 0.0}
    # one of b is taken for c: now c counts, with a precision and a recall of 0
    summary = summarise(np.array([[6, 0, 0], [0, 5, 1], [0, 0, 0]]), 1.0, 12, ["a", "b", "c"])
    assert summary["macro_classes"] == 3
    assert summary["f1"]["macro"] == pytest.approx((1 + 10 / 11 + 0) / 3)
    assert summary["f1"]["weighted"] == pytest.approx((6 * 1 + 6 * 10 / 11) / 12)


@pytest.mark.parametrize("metric", ["top1", "top5", "loss", "f1_macro", "f1_weighted"])
@pytest.mark.parametrize("classes", [2, 5, 6, 1000])
def test_a_metric_that_is_always_the_same_decides_nothing(metric: str, classes: int) -> None:
    if metric != "top5" or classes > 5:
        check_metric(metric, classes, "evaluate.metric")
        return
    with pytest.raises(ConfigError) as caught:
        check_metric(metric, classes, "evaluate.metric")
    assert caught.value.where == "evaluate.metric"
    assert f"top5 with {classes} classes" in (caught.value.found or "")
    assert "evaluate.metric=top1" in (caught.value.fix or "")


def test_two_classes_by_hand() -> None:
    # Class a: 3 rows, 2 found. Class b: 1 row, found; one a was taken for a b.
    summary = summarise(np.array([[2, 1], [0, 1]]), 3.0, 4, ["a", "b"])
    assert summary["count"] == 4
    assert summary["loss"] == 0.75
    assert summary["top1"] == 0.75
    assert summary["top5"] == 1.0
    assert summary["precision"]["per_class"] == {"a": 1.0, "b": 0.5}
    assert summary["precision"]["macro"] == 0.75
    assert summary["precision"]["weighted"] == pytest.approx((3 * 1.0 + 1 * 0.5) / 4)
    assert summary["recall"]["per_class"] == {"a": pytest.approx(2 / 3), "b": 1.0}
    assert summary["f1"]["per_class"] == {"a": pytest.approx(0.8), "b": pytest.approx(2 / 3)}
    assert summary["f1"]["macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert summary["confusion"] == [[2, 1], [0, 1]]


@pytest.mark.parametrize("num_classes", [2, 3, 7, 12])
@pytest.mark.parametrize("rows", [1, 5, 400])
def test_same_as_scikit_learn(num_classes: int, rows: int) -> None:
    # Few rows leave classes without a truth or without a prediction: all divisions by zero occur.
    generator = np.random.default_rng(num_classes * 1000 + rows)
    labels = np.arange(num_classes)
    truth, logits = generator.integers(0, num_classes, rows), generator.normal(size=(rows, num_classes))
    predicted = logits.argmax(axis=1)
    top = min(5, num_classes)
    hits = int((np.argsort(-logits, axis=1)[:, :top] == truth[:, None]).any(axis=1).sum())
    names = [f"class {label}" for label in labels]
    summary = summarise(confusion_matrix(truth, predicted, labels=labels), 1.5 * rows, hits, names)

    assert summary["count"] == rows
    assert summary["loss"] == pytest.approx(1.5)
    assert summary["top1"] == pytest.approx(accuracy_score(truth, predicted))
    if num_classes > 5:
        assert summary["top5"] == pytest.approx(top_k_accuracy_score(truth, logits, k=5, labels=labels))
    else:
        assert summary["top5"] == 1.0
    occurring = np.union1d(truth, predicted)
    assert summary["macro_classes"] == len(occurring)
    assert summary["support"] == dict(zip(names, np.bincount(truth, minlength=num_classes).tolist(), strict=True))
    for average in ("macro", "weighted", None):
        chosen = labels if average is None else None  # None: those that occur
        expected = precision_recall_fscore_support(truth, predicted, labels=chosen, average=average, zero_division=0)
        for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
            if average is None:
                assert summary[name]["per_class"] == pytest.approx(dict(zip(names, values, strict=True)))
            else:
                assert summary[name][average] == pytest.approx(values)


def test_it_is_plain_json_and_survives_it() -> None:
    summary = summarise(np.array([[2, 1], [0, 1]], dtype=np.int64), np.float64(3.0), 4, ["a", "b"])  # type: ignore[arg-type]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_no_rows_give_zeros_and_no_warning() -> None:
    summary = summarise(np.zeros((3, 3), dtype=np.int64), 0.0, 0, ["a", "b", "c"])
    assert set(flat(summary).values()) == {0}


def test_flat_has_the_scalars_only() -> None:
    scalars = flat(summarise(np.array([[2, 1], [0, 1]]), 3.0, 4, ["a", "b"]))
    assert set(scalars) == {
        "count", "loss", "top1", "top5",
        "precision_macro", "precision_weighted", "recall_macro", "recall_weighted", "f1_macro", "f1_weighted",
    }  # fmt: skip
    assert scalars["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert scalars["recall_weighted"] == pytest.approx(scalars["top1"])


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        summarise(np.zeros((2, 2), dtype=np.int64), 0.0, 0, ["a", "b", "c"])
