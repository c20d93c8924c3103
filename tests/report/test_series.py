"""Which charts a history gives, and of which points."""

from __future__ import annotations

import math

from raycls.report.series import panels, thinned, together


def _train(epoch: float, **values: float) -> dict[str, float | str | int]:
    return {"kind": "train", "step": int(epoch * 10), "epoch": epoch, **values}


def _evaluate(epoch: float, **values: float) -> dict[str, float | str | int]:
    return {"kind": "evaluate", "step": int(epoch * 10), "epoch": epoch, "split": "val", **values}


def test_charts_are_the_loss_the_first_metric_the_one_that_decides_and_the_rest() -> None:
    records = [
        _train(1.0, loss=2.0, top1=0.5, images_per_second=100.0, data_wait=0.1, lr=0.1, grad_norm=1.0),
        _evaluate(1.0, loss=1.5, top1=0.6, f1_macro=0.55, count=24, elapsed=3.0),
        _train(2.0, loss=1.0, top1=0.7, images_per_second=110.0, data_wait=0.2, lr=0.1, grad_norm=2.0),
    ]
    found = {panel.key: panel for panel in panels(records, "classification", "f1_macro")}
    assert list(found) == ["loss", "top1", "f1_macro", "images_per_second", "data_wait", "lr", "grad_norm"]
    train, val = found["top1"].lines
    assert (train.name, train.points, train.marked) == ("train", ((1.0, 0.5), (2.0, 0.7)), False)
    assert (val.name, val.points, val.marked) == ("validation", ((1.0, 0.6),), True)
    assert found["top1"].share
    assert not found["loss"].share
    assert found["top1"].title == "accuracy"


def test_values_that_are_not_finite_are_counted_and_not_drawn() -> None:
    records = [_train(1.0, loss=1.0), _train(2.0, loss=math.nan), _train(3.0, loss=math.inf)]
    (panel,) = panels(records, "classification", "top1")
    (line,) = panel.lines
    assert (line.points, line.left_out) == (((1.0, 1.0),), 2)


def test_a_task_of_the_user_has_the_numbers_of_its_evaluations() -> None:
    records = [_evaluate(1.0, loss=1.0, iou=0.4, count=9, elapsed=1.0, best=True)]
    assert [panel.key for panel in panels(records, "masks:Masks", "iou")] == ["loss", "iou"]


def test_nothing_measured_gives_no_chart() -> None:
    assert panels([], "classification", "top1") == []


def test_thinning_keeps_the_ends_and_every_spike() -> None:
    points = [(float(x), 1.0) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[8765] = (8765.0, -9.0)
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert {points[0], points[-1], points[4321], points[8765]} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(points[:50], 100) == points[:50]


def test_several_runs_share_charts_and_one_that_was_not_evaluated_says_so() -> None:
    evaluated = [_train(1.0, loss=2.0, lr=0.1), _evaluate(1.0, loss=1.5, top1=0.6)]
    fresh = [_train(1.0, loss=3.0, lr=0.2)]
    runs = [(name, panels(records, "classification", "top1")) for name, records in (("a", evaluated), ("b", fresh))]
    found = {panel.key: panel for panel in together(runs)}
    assert list(found) == ["loss", "top1", "lr"]
    told = {key: [(line.name, line.style, line.points) for line in panel.lines] for key, panel in found.items()}
    assert told["loss"] == [("a", "run0", ((1.0, 1.5),)), ("b (train)", "run1", ((1.0, 3.0),))]
    assert told["top1"] == [("a", "run0", ((1.0, 0.6),))]
    assert told["lr"] == [("a", "run0", ((1.0, 0.1),)), ("b", "run1", ((1.0, 0.2),))]  # of training, in all of them
