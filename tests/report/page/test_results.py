"""The numbers of a page, by hand from a summary."""

from __future__ import annotations

import numpy as np
import pytest

from raycls.report.evaluated import Samples
from raycls.report.page.results import class_rows, figures, reliability, worst
from raycls.tasks.classification import summarise

_SUMMARY = summarise(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]]), loss_sum=4.0, top5=8, classes=("cat", "dog", "owl"))


def test_numbers_have_their_intervals_and_methods() -> None:
    intervals = {
        "level": 0.95,
        "top1": {"low": 0.3, "high": 0.86, "method": "wilson"},
        "f1_macro": {"low": 0.7, "high": 0.8, "method": "bootstrap"},
    }
    found = {each.name: each for each in figures({**_SUMMARY, "intervals": intervals}, 3)}
    top1 = found["top1"]
    assert (top1.text, top1.interval, top1.method, top1.headline) == ("62.50 %", "30.00 to 86.00 %", "Wilson", True)
    assert top1.bar == pytest.approx((30, 62.5, 86))
    assert not top1.outside
    assert found["f1_macro"].outside  # (2/3 + 4/7) / 2 = 0.619 of the two classes that occur
    assert found["f1_macro"].text == "61.90 %"
    assert (found["loss"].text, found["loss"].interval, found["loss"].bar) == ("0.5", "", None)
    assert "top5" not in found  # of three classes all are among the first five
    assert "top5" in {each.name for each in figures(_SUMMARY, 6)}


def test_another_task_has_the_numbers_of_its_summary() -> None:
    found = figures({"count": 9, "loss": 0.25, "iou": 0.5, "split": "test"}, 0)
    assert [(each.name, each.text, each.headline) for each in found] == [("loss", "0.25", False), ("iou", "0.5", True)]


def test_classes_are_in_the_order_of_their_f1_and_those_without_images_last() -> None:
    rows = class_rows(_SUMMARY, None)
    assert [(row["name"], row["count"], row["other"], row["other_count"]) for row in rows] == [
        ("dog", 4, "cat", 2),
        ("cat", 4, "dog", 1),
        ("owl", 0, "", 0),
    ]
    assert rows[0]["recall"] == 0.5
    assert rows[1]["auroc"] is None


def test_the_reliability_diagram_has_a_bar_per_bin_with_images() -> None:
    bins = [
        {"from": 0.0, "to": 0.5, "count": 0, "confidence": None, "accuracy": None},
        {"from": 0.5, "to": 1.0, "count": 8, "confidence": 0.75, "accuracy": 0.625},
    ]
    assert reliability({"calibration": {"bins": bins}}) == [
        {
            "from": 50.0,
            "to": 100.0,
            "accuracy": 62.5,
            "confidence": 75.0,
            "part": 100.0,
            "text": "confidence 50% to 100%: 8 images, 62.5% right, 75.0% expected",
        }
    ]
    assert reliability({}) == []


def test_the_worst_errors_are_the_surest_and_then_those_of_the_highest_loss() -> None:
    names = ["a", "b", "c", "d", "e"]
    samples = Samples(
        names,
        names,
        ["x", "y"],
        np.array([0, 0, 0, 0, 0]),
        np.array([1, 1, 1, 0, 1]),
        np.array([0.6, 0.9, 0.7, 0.99, 0.8]),
        np.array([0.01, 0.1, 0.02, 0.99, 0.2]),
    )
    sure, lossy = worst(samples, 2)
    assert [(wrong.key, wrong.confidence, wrong.predicted, wrong.truth) for wrong in sure] == [
        ("b", 0.9, "y", "x"),
        ("e", 0.8, "y", "x"),
    ]
    assert [(wrong.key, wrong.of_truth) for wrong in lossy] == [("a", 0.01), ("c", 0.02)]
