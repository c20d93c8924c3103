"""What is said of one mask, and of many.

Empty masks follow one rule: a class that a sample has neither in truth nor in prediction is left out of the means of
that class (`absent` counts these samples); where it is in one of both only, Dice and IoU are 0, and the distances are
infinite and left out of the means of distances (`one_empty` counts them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raycls.tasks.scores.masks import average_surface_distance, hausdorff95, overlap

__all__ = ["CASE", "case_of", "dice_of", "distances", "macro_dice", "means"]

CASE = ("dice", "iou", "hausdorff95", "surface_distance", "true", "predicted")
"""The numbers of one class of one sample: the last two count its pixels or voxels."""


def case_of(codes: np.ndarray, found: np.ndarray, size: int, spacing: Sequence[float]) -> np.ndarray:
    """`[C, 6] float64`, as `CASE` names them, of a mask of codes and the predicted classes of its pixels."""
    there = codes > 0
    rows: list[list[float]] = []
    for label in range(size):
        truth, said = codes == label + 1, (found == label) & there
        shares, many = overlap(truth, said), (float(truth.sum()), float(said.sum()))
        far = hausdorff95(truth, said, spacing), average_surface_distance(truth, said, spacing)
        rows.append([*shares, *far, *many])
    return np.array(rows, np.float64)


def dice_of(codes: np.ndarray, found: np.ndarray, size: int) -> list[float]:
    """The Dice of each class, as `case_of` has it; NaN where it is in neither mask."""
    return [overlap(codes == label + 1, (found == label) & (codes > 0)).dice for label in range(size)]


def macro_dice(dice: np.ndarray, first: int) -> float:
    """The mean over the classes from `first` on of their means over samples, of `dice` `[N, C]` with NaN."""
    known = ~np.isnan(dice)
    return _macro(_ratios(np.where(known, dice, 0).sum(0), known.sum(0))[first:])


def means(counts: Mapping[str, np.ndarray], classes: Sequence[str], first: int) -> dict[str, Any]:
    """The summary of an evaluation: `count`, `loss`, `pixels` (the part of all pixels that are right), `dice` and `iou`
    (macro: the mean over the classes from `first` on), `per_class` with `dice` and `iou` as means over samples (None
    where no sample has the class), `pooled_dice` of all pixels together, `pixels` of the truth and `absent`, and the
    `pixel_confusion`, a row per true class."""
    confusion, cases, count = counts["confusion"].astype(np.int64), counts["cases"], int(counts["count"])
    hits, truth, said = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    columns = {
        "dice": _ratios(counts["dice"], cases),
        "iou": _ratios(counts["iou"], cases),
        "pooled_dice": _ratios(2 * hits, truth + said),
        "pixels": truth.tolist(),
        "absent": (count - cases).tolist(),
    }
    return {
        "count": count,
        "loss": float(counts["loss"]) / max(1, count),
        "dice": _macro(columns["dice"][first:]),
        "iou": _macro(columns["iou"][first:]),
        "pixels": float(hits.sum() / max(1, confusion.sum())),
        "per_class": _by_class(columns, classes),
        "pixel_confusion": confusion.tolist(),
    }


def distances(cases: np.ndarray, summary: Mapping[str, Any], classes: Sequence[str], first: int = 1) -> dict[str, Any]:
    """`hausdorff95` and `surface_distance` (macro), and the `per_class` of `summary` with them and `one_empty`, of
    `cases` `[N, C, 6]`. A macro that is not known is left out."""
    columns: dict[str, list[Any]] = {}
    for column, name in ((2, "hausdorff95"), (3, "surface_distance")):
        finite = np.isfinite(cases[:, :, column])
        columns[name] = _ratios(np.where(finite, cases[:, :, column], 0).sum(0), finite.sum(0))
    macros = {name: _macro(values[first:]) for name, values in columns.items()}
    columns["one_empty"] = np.isinf(cases[:, :, 2]).sum(0).tolist()
    more = _by_class(columns, classes)
    told = {name: {**found, **more[name]} for name, found in summary["per_class"].items()}
    return {**{name: value for name, value in macros.items() if value == value}, "per_class": told}


def _ratios(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def _macro(values: Sequence[float | None]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else float("nan")


def _by_class(columns: Mapping[str, Sequence[Any]], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {label: {name: values[row] for name, values in columns.items()} for row, label in enumerate(classes)}
