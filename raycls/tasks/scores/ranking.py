"""How well scores rank the rows of a class before those of the others: AUROC and average precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from raycls.progress import counted

__all__ = ["Ranked", "influence", "rank"]

NAMES = ("auroc", "average_precision")


class Ranked(NamedTuple):
    """Both metrics over the classes that occur in some rows and not in all of them."""

    per_class: dict[str, list[float | None]]
    """By metric, one value per class; None where the metric of a class is not defined."""
    macro: dict[str, float | None]
    """The mean over the classes that have a value; None where none has."""
    weighted: dict[str, float | None]
    """The mean over these, weighted by their rows."""
    classes: int
    """How many classes have a value."""
    deviation: dict[str, dict[str, float | None]]
    """By average and metric, the standard error by the infinitesimal jackknife."""


def rank(score: Callable[[int], np.ndarray], labels: np.ndarray, size: int) -> Ranked:
    """AUROC and average precision of each of `size` classes against the rest, as scikit-learn has them.

    `score(c)` is how much each row looks like class `c`, `[N]`; ties count as scikit-learn counts them. A class that no
    row has, or every row, has neither metric and is left out of the averages (torchmetrics counts it as 0).
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    support = np.bincount(labels, minlength=size)
    values: dict[str, list[float | None]] = {name: [None] * size for name in NAMES}
    equal = np.zeros((2, len(labels)))
    weighed = np.zeros((2, len(labels)))
    ranked = [label for label in range(size) if 0 < support[label] < len(labels)]
    for label in counted(ranked, "ranking", len(ranked), "classes"):
        scores, positive = score(label), labels == label
        found = (float(roc_auc_score(positive, scores)), float(average_precision_score(positive, scores)))
        slopes = influence(positive, scores)
        equal += slopes
        weighed += support[label] * slopes
        weighed[:, positive] += np.array(found)[:, None]
        for name, value in zip(NAMES, found, strict=True):
            values[name][label] = value
    return _averaged(values, ranked, support, equal, weighed, labels)


def _averaged(
    values: dict[str, list[float | None]],
    ranked: list[int],
    support: np.ndarray,
    equal: np.ndarray,
    weighed: np.ndarray,
    labels: np.ndarray,
) -> Ranked:
    macro: dict[str, float | None] = dict.fromkeys(NAMES)
    weighted: dict[str, float | None] = dict.fromkeys(NAMES)
    deviation: dict[str, dict[str, float | None]] = {"macro": dict(macro), "weighted": dict(macro)}
    if ranked:
        weights = support[ranked].astype(np.float64)
        inside = np.isin(labels, ranked)
        for row, name in enumerate(NAMES):
            of_class = np.array([values[name][label] for label in ranked], np.float64)
            macro[name] = float(of_class.mean())
            weighted[name] = mean = float((of_class * weights).sum() / weights.sum())
            deviation["macro"][name] = float(np.sqrt(np.square(equal[row] / len(ranked)).sum()))
            slopes = (weighed[row] - mean * inside) / weights.sum()
            deviation["weighted"][name] = float(np.sqrt(np.square(slopes).sum()))
    return Ranked(values, macro, weighted, len(ranked), deviation)


def influence(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The derivatives of AUROC and of average precision by the weight of each row, `[2, N]` float64.

    The root of the sum of their squares is the standard error by the infinitesimal jackknife (Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993, section 21.3). That of AUROC is the one of DeLong et al. 1988, with the
    number of rows of a class in the place of one less.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(order) - 1)  # of each group of ties
    group = np.repeat(np.arange(len(last)), np.diff(last, prepend=-1))
    true = np.cumsum(hits)[last].astype(np.float64)
    false = last + 1 - true
    hits_in, misses_in = np.diff(true, prepend=0.0), np.diff(false, prepend=0.0)
    positives, negatives = true[-1], false[-1]
    below, above = negatives - false + misses_in / 2, true - hits_in / 2
    area = float((hits_in * below).sum() / (positives * negatives))
    precision, above_line = true / (true + false), np.square(true + false)
    average = float((hits_in * precision).sum() / positives)
    found = np.empty((2, len(order)))
    of_hits, of_misses = (below / negatives - area) / positives, (above / positives - area) / negatives
    found[0, order] = np.where(hits, of_hits[group], of_misses[group])
    gained = _from_here(hits_in / positives * false / above_line)
    lost = _from_here(hits_in / positives * true / above_line)
    found[1, order] = np.where(hits, ((precision - average) / positives + gained)[group], -lost[group])
    return found


def _from_here(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values[::-1])[::-1]
