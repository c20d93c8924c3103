from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from raycls.config.names.metrics import Metric
from raycls.report.plots.curves import svg

SVG = "{http://www.w3.org/2000/svg}"


def train(epoch: float, loss: float, top1: float) -> dict[str, Any]:
    return {"kind": "train", "epoch": epoch, "step": int(epoch * 10), "loss": loss, "top1": top1}


def evaluate(epoch: float, top1: float, split: str = "val") -> dict[str, Any]:
    return {"kind": "evaluate", "split": split, "epoch": epoch, "loss": 1.0, "top1": top1}


RECORDS = [train(0.5, 2.0, 0.25), train(1, 1.0, 0.5), evaluate(1, 0.5), train(2, 0.5, 0.75), evaluate(2, 0.75)]


def words(data: bytes) -> list[str]:
    return ["".join(item.itertext()).strip() for item in ElementTree.fromstring(data).iter(f"{SVG}text")]


def curves(data: bytes) -> list[list[tuple[float, float]]]:
    """The points of each plotted line, in the units of the page (y grows downwards)."""
    found = []
    for group in ElementTree.fromstring(data).iter(f"{SVG}g"):
        if not group.get("id", "").startswith("line2d"):
            continue
        for path in group.findall(f"{SVG}path"):
            if path.get("clip-path") and "stroke: #b0b0b0" not in path.get("style", ""):
                numbers = [float(word) for word in path.get("d", "").replace("M", " ").replace("L", " ").split()]
                found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def test_the_three_curves_have_the_values_of_the_records() -> None:
    loss, accuracy, validation = curves(svg(RECORDS))
    assert [len(loss), len(accuracy), len(validation)] == [3, 3, 2]
    # Epochs 0.5, 1, 2 and losses 2, 1, 0.5: the second span is twice the first, the second drop half of it.
    assert (loss[2][0] - loss[1][0]) / (loss[1][0] - loss[0][0]) == pytest.approx(2, abs=1e-3)
    assert (loss[2][1] - loss[1][1]) / (loss[1][1] - loss[0][1]) == pytest.approx(0.5, abs=1e-3)
    assert loss[1][1] > loss[0][1]  # further down the page
    assert validation[0] == pytest.approx(accuracy[1], abs=1e-3)
    assert validation[1] == pytest.approx(accuracy[2], abs=1e-3)


def test_the_words() -> None:
    said = words(svg([*RECORDS, evaluate(2, 0.7, "test")]))
    assert {"epoch", "loss", "accuracy", "train", "validation", "test"} <= set(said)


def test_equal_records_give_equal_bytes() -> None:
    first = svg(RECORDS)
    assert svg(RECORDS) == first
    assert b"<dc:date>" not in first


def test_one_point_is_a_visible_mark() -> None:
    data = svg([train(1, 2.0, 0.5)])
    marks = [item for item in ElementTree.fromstring(data).iter(f"{SVG}use") if "#1f77b4" in item.get("style", "")]
    assert len(marks) == 4  # one in each half, and one in each legend
    assert [len(points) for points in curves(data)] == [1, 1]


def test_no_records_and_no_numbers() -> None:
    assert words(svg([])).count("nothing was measured") == 2
    bad = [train(1, math.nan, math.inf), {"kind": "event", "text": "x"}, {"kind": "train", "step": 1}]
    assert words(svg(bad)).count("nothing was measured") == 2


def test_evaluated_on_the_training_split() -> None:
    assert "train (evaluated)" in words(svg([train(1, 1.0, 0.5), evaluate(1, 0.6, "train")]))


def test_the_first_metric_of_another_task_is_drawn() -> None:
    records = [{"kind": "evaluate", "split": "val", "epoch": epoch, "dice": epoch / 4, "top1": 0.1} for epoch in (1, 3)]
    drawn = svg(records, {"loss": Metric("min"), "dice": Metric("max", 0.0, 1.0)})
    assert {"dice", "validation", "nothing was measured"} <= set(words(drawn))  # there is no loss
    assert "accuracy" not in words(drawn)
    (line,) = curves(drawn)
    assert line[1][1] < line[0][1]  # dice rises, up the page
