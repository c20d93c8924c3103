"""Scores of any number of labels per image, from integer counts alone: so they do not depend on who counted what.

A score falls into one of `BINS` bins of its logit, 1/32 wide, from -16 to 16; what lies outside is in the outer ones.
Scores in one bin are ties. Average precision over ties is that of scikit-learn's `average_precision_score`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "BINS",
    "HALF",
    "LOWEST",
    "PER_UNIT",
    "at_thresholds",
    "histogram_of",
    "mean_average_precision",
    "sigmoid",
    "summarise",
    "unfitted",
]

BINS, PER_UNIT, LOWEST = 1024, 32, -16.0
HALF = BINS // 2
"""The bin that begins at a probability of one half."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probability of each class by itself, in float64."""
    with np.errstate(over="ignore"):  # of a logit below -709 it is 0
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def histogram_of(logits: np.ndarray, there: np.ndarray) -> np.ndarray:
    """`[C, 2, BINS] int64`: how many images without and with each class have a logit in each bin; a NaN is in the
    lowest one. `logits` are `[N, C]`, `there` is `[N, C] bool`."""
    size = logits.shape[1]
    place = np.nan_to_num((logits.astype(np.float64) - LOWEST) * PER_UNIT)
    place = np.floor(place).clip(0, BINS - 1).astype(np.int64)
    column = np.arange(size) * 2 + there
    return np.bincount((column * BINS + place).ravel(), minlength=size * 2 * BINS).reshape(size, 2, BINS)


def mean_average_precision(scores: np.ndarray, there: np.ndarray) -> float:
    """The mean over the classes that an image has of scikit-learn's `average_precision_score`, without bins: equal
    scores are ties. `scores` are `[N, C]`, `there` is `[N, C] bool`; 0 where no image has a class."""
    found: list[float] = []
    for score, true in zip(scores.T, there.T, strict=True):
        if not true.any():
            continue
        order = np.argsort(-score, kind="stable")
        last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of each group of ties
        hits = true[order].cumsum()[last]
        found.append(float((np.diff(hits, prepend=0) / hits[-1] * hits / (last + 1)).sum()))
    return float(np.mean(found)) if found else 0.0


def summarise(histogram: np.ndarray, exact: int, loss_sum: float, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of one evaluation, as plain JSON.

    `histogram` is `[C, 2, BINS]` int64: for each class how many images without and with it have a score in a bin.
    `exact` counts the images of which every class is right, `loss_sum` is the sum of the losses of all images.

    Gives `count`, `loss` (mean), `map` (mean of the average precision of the `map_classes` classes that have an image),
    `exact`, and with a class predicted from a probability of 0.5: `f1_macro` (over the same classes) and `f1_micro`.
    `per_class` has by name `support`, `average_precision` (None without an image), `precision`, `recall`, `f1`,
    `best_threshold`, the probability from which predicting the class gives the highest F1 on these images (the highest
    of several; 0.5 without an image), and that `f1_at_best_threshold`. A division by zero gives 0.
    """
    count = int(histogram[0].sum()) if len(classes) else 0
    above = histogram[:, :, ::-1].cumsum(axis=2)[:, :, ::-1].astype(np.float64)  # at or above each bin
    false, true = above[:, 0], above[:, 1]
    support = true[:, 0]
    there = support > 0
    precision, recall = _ratio(true, true + false), _ratio(true, support[:, None])
    f1 = _ratio(2 * true, true + false + support[:, None])
    average = (precision * np.diff(recall, axis=1, append=0.0) * -1).sum(axis=1)
    # without an image every threshold has an F1 of 0, and the highest would mean: never
    best = np.where(there, BINS - 1 - f1[:, ::-1].argmax(axis=1), HALF)
    at = HALF
    return {
        "count": count,
        "loss": loss_sum / count if count else 0.0,
        "map": float(average[there].mean()) if there.any() else 0.0,
        "map_classes": int(there.sum()),
        "exact": exact / count if count else 0.0,
        "f1_macro": float(f1[there, at].mean()) if there.any() else 0.0,
        "f1_micro": float(_ratio(2 * true[:, at].sum(), (true[:, at] + false[:, at] + support).sum())),
        "per_class": {
            name: {
                "support": int(support[row]),
                "average_precision": float(average[row]) if there[row] else None,
                "precision": float(precision[row, at]),
                "recall": float(recall[row, at]),
                "f1": float(f1[row, at]),
                "best_threshold": _probability(int(best[row])),
                "f1_at_best_threshold": float(f1[row, best[row]]),
            }
            for row, name in enumerate(classes)
        },
    }


def unfitted(per_class: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The classes of the `per_class` of `summarise` without an image: their threshold of 0.5 fits nothing."""
    return tuple(name for name, each in per_class.items() if each.get("support") == 0)


def at_thresholds(
    probabilities: np.ndarray, there: np.ndarray, thresholds: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """`exact`, `f1_macro` over the classes that an image has, `f1_micro`, and `per_class` `precision`, `recall` and
    `f1` by name, where a class `[C]` is predicted from its threshold. A division by zero gives 0."""
    predicted = probabilities >= thresholds
    true, said, support = ((predicted & there).sum(0), predicted.sum(0), there.sum(0))
    precision, recall, f1 = _ratio(true, said), _ratio(true, support), _ratio(2 * true, said + support)
    scores = zip(precision.tolist(), recall.tolist(), f1.tolist(), strict=True)
    return {
        "exact": float((predicted == there).all(1).mean()) if len(there) else 0.0,
        "f1_macro": float(f1[support > 0].mean()) if support.any() else 0.0,
        "f1_micro": float(_ratio(2 * true.sum(), said.sum() + support.sum())),
        "per_class": {
            name: dict(zip(("precision", "recall", "f1"), each, strict=True))
            for name, each in zip(classes, scores, strict=True)
        },
    }


def _ratio(above: Any, below: Any) -> np.ndarray:
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.zeros(above.shape), where=below != 0)


def _probability(index: int) -> float:
    """Where a bin begins; the lowest one at 0."""
    return float(sigmoid(np.array([LOWEST + index / PER_UNIT]))[0]) if index else 0.0
