"""What an evaluation says beside its counts: ranking, calibration, intervals, groups. From the logits of all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raycls.tasks.scores import intervals
from raycls.tasks.scores.averages import averages
from raycls.tasks.scores.calibration import brier_of, calibration
from raycls.tasks.scores.probabilities import Probabilities
from raycls.tasks.scores.ranking import NAMES, Ranked, rank
from raycls.tasks.scores.resampled import Resampled

__all__ = ["group_by", "measure"]

_AVERAGES = ("macro", "weighted")


def measure(probabilities: Probabilities, labels: np.ndarray, summary: Mapping[str, Any]) -> dict[str, Any]:
    """`auroc`, `average_precision`, `calibration` and `intervals`, as plain JSON.

    `probabilities` are those that count, at their temperature; `summary` is that of the counts. The first
    two have `macro`, `weighted` and `per_class` (by class name; None where not defined), and `classes`, the number of
    classes that they are over. `calibration` is as in `calibration.calibration`, with the `temperature` and, where that
    is not 1, `raw`: the same without it. `intervals` has an entry with `low`, `high` and `method` for each headline
    number, by names such as `top1` and `f1_macro`; `level`, `resamples` and `seed` beside them. Of a network that
    diverged there is `not_finite` alone, the number of rows without probabilities.
    """
    wrong = int((~probabilities.finite).sum())
    if wrong:
        return {"not_finite": wrong}
    classes = list(summary["support"])
    ranked = rank(probabilities.column, labels, len(classes))
    calibrated = calibration(probabilities, labels)
    found: dict[str, Any] = {
        name: {
            "macro": ranked.macro[name],
            "weighted": ranked.weighted[name],
            "classes": ranked.classes,
            "per_class": dict(zip(classes, ranked.per_class[name], strict=True)),
        }
        for name in NAMES
    }
    found["calibration"] = {"temperature": probabilities.temperature, **calibrated}
    if probabilities.temperature != 1:
        raw = calibration(probabilities.at(1.0), labels)
        found["calibration"]["raw"] = {name: raw[name] for name in ("nll", "brier", "ece")}
    found["intervals"] = _intervals(probabilities, labels, summary, ranked)
    return found


def _intervals(
    probabilities: Probabilities, labels: np.ndarray, summary: Mapping[str, Any], ranked: Ranked
) -> dict[str, Any]:
    count = len(labels)
    found: dict[str, Any] = {
        "level": intervals.LEVEL,
        "resamples": intervals.RESAMPLES,
        "seed": intervals.SEED,
        **{name: intervals.wilson(round(summary[name] * count), count) for name in ("top1", "top5")},
    }
    for name in NAMES:
        for average in _AVERAGES:
            value, deviation = getattr(ranked, average)[name], ranked.deviation[average][name]
            if value is not None and deviation is not None:
                found[f"{name}_{average}"] = intervals.jackknife(value, deviation)
    found |= intervals.bootstrap(_resampled(probabilities, labels), count, pivotal=("ece",))
    for name, (value, deviation) in averages(labels, probabilities.predicted, probabilities.size).items():
        found[name] = intervals.jackknife(value, deviation)  # not from resamples, which bias F1
    return found


def _resampled(probabilities: Probabilities, labels: np.ndarray) -> Resampled:
    means = {
        "loss": -probabilities.at(1.0).log_of(labels),
        "nll": -probabilities.log_of(labels),
        "brier": brier_of(probabilities, labels),
    }
    return Resampled(labels, probabilities.predicted, probabilities.confidence(), probabilities.size, means)


def group_by(probabilities: Probabilities, labels: np.ndarray, values: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By each value of a column, in the order of the values: `count`, `top1` with its Wilson interval as
    `top1_interval`, `nll`, `f1_macro` and `auroc_macro` (None where one class alone occurs)."""
    names, position = np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)
    nll, right = -probabilities.log_of(labels), labels == probabilities.predicted
    order = np.argsort(position, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(position))[:-1])
    found: dict[str, dict[str, Any]] = {}
    for name, rows in zip(names.tolist(), parts, strict=True):
        part = Probabilities(probabilities.logits[rows], probabilities.temperature)
        hits = int(right[rows].sum())
        found[name] = {
            "count": len(rows),
            "top1": hits / len(rows),
            "top1_interval": intervals.wilson(hits, len(rows)),
            "nll": float(nll[rows].mean()),
            "f1_macro": _resampled(part, labels[rows]).f1_macro(np.ones(len(rows), np.int64)),
            "auroc_macro": rank(part.column, labels[rows], part.size).macro["auroc"],
        }
    return found
