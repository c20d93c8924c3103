"""Where to cut the probability of one of two classes, and what the cut is worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raycls.tasks.scores import intervals

__all__ = ["RULES", "at_threshold", "fit_threshold", "read_rule"]

RULES = "a number above 0 and below 1; max-f1; youden; recall=NUMBER"


def read_rule(text: str) -> tuple[str, float]:
    """`("max-f1", nan)`, `("youden", nan)`, `("recall", 0.95)`, or `("", 0.3)` for a number. ValueError else."""
    if text in ("max-f1", "youden"):
        return text, math.nan
    name, equals, number = text.rpartition("=")
    value = float(number)
    if not 0 < value < 1 or (bool(equals), name) not in ((False, ""), (True, "recall")):
        raise ValueError(text)
    return name, value


def fit_threshold(rule: tuple[str, float], positive: np.ndarray, scores: np.ndarray) -> float:
    """The threshold that a rule chooses from the `scores` of rows that are `positive` or not.

    `max-f1`: the highest F1. `youden`: the highest sum of recall and specificity (Youden 1950). `recall`: the highest
    threshold with at least that recall. Of several equal ones the highest. It lies in the middle between the lowest
    score that it takes in and the next one. ValueError where there are not both kinds of rows.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    if positive.all() or not positive.any():
        raise ValueError("one class alone")
    name, wanted = rule
    if name == "youden":
        false, true, cuts = roc_curve(positive, scores, drop_intermediate=False)
        quality, cuts = (true - false)[1:], cuts[1:]  # the first one takes in nothing
    else:
        precision, recall, cuts = precision_recall_curve(positive, scores)
        precision, recall, cuts = precision[-2::-1], recall[-2::-1], cuts[::-1]
        total = precision + recall
        quality = np.divide(2 * precision * recall, total, out=np.zeros(len(total)), where=total > 0)
        quality = (recall >= wanted).astype(np.float64) if name == "recall" else quality
    chosen = cuts[int(np.argmax(quality))]  # the first of several, and the cuts fall
    below = scores[scores < chosen]
    return float((chosen + below.max()) / 2 if len(below) else chosen / 2)


def at_threshold(value: float, positive: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """What calling a row positive from `value` on is worth: the four counts, the rates, and their `intervals`.

    A rate without rows is None. The intervals are Wilson's, that of `f1` is the jackknife's.
    """
    called = scores >= value
    true, false = int((called & positive).sum()), int((called & ~positive).sum())
    missed, left = int((~called & positive).sum()), int((~called & ~positive).sum())
    shares = {
        "accuracy": (true + left, len(positive)),
        "precision": (true, true + false),
        "recall": (true, true + missed),
        "specificity": (left, left + false),
    }
    cells = np.array([true, false, missed, left])
    f1 = _f1(cells[None])[0]
    found: dict[str, Any] = {name: above / of if of else None for name, (above, of) in shares.items()}
    found["f1"] = float(f1) if true + false + missed else None
    ends = {name: intervals.wilson(above, of) for name, (above, of) in shares.items() if of}
    if true + false + missed:
        without = _f1(np.maximum(cells - np.eye(4, dtype=np.int64), 0))
        ends["f1"] = intervals.jackknife(float(f1), intervals.deviation(without, cells))
    counts = {"true_positive": true, "false_positive": false, "false_negative": missed, "true_negative": left}
    return {**counts, **found, "intervals": ends}


def _f1(cells: np.ndarray) -> np.ndarray:
    """Of rows of `true_positive`, `false_positive`, `false_negative` and others, `[n, 4]`; 0 of nothing."""
    below = 2 * cells[:, 0] + cells[:, 1] + cells[:, 2]
    return np.divide(2 * cells[:, 0], below, out=np.zeros(len(cells)), where=below > 0)
