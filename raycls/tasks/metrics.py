"""From counts to metrics, at the very end: sums and counts are exact for any number of workers, means are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raycls.config.write import override
from raycls.errors import ConfigError

__all__ = ["check_metric", "flat", "summarise"]

_TOP = 5


def summarise(confusion: np.ndarray, loss_sum: float, top5: int, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of one evaluation, as plain JSON.

    `confusion` is `[C, C]` int64 with a row per true class and a column per predicted one, `loss_sum` the sum of
    the losses of all rows, `top5` the number of rows whose class was among the min(5, C) highest logits.

    Gives `count`, `loss` (mean), `top1`, `top5`, `confusion`, and `precision`, `recall` and `f1`, each with
    `per_class` (by class name), `macro` (mean over the classes that occur in the labels or the predictions) and
    `weighted` (mean weighted by the rows of each class); `macro_classes` is the number of classes that the macro
    averages are over, `support` the rows of each class. A division by zero gives 0. All as scikit-learn's
    `precision_recall_fscore_support(..., zero_division=0)` has it.
    """
    if confusion.shape != (len(classes), len(classes)):
        raise ValueError(f"the confusion matrix is {confusion.shape}, there are {len(classes)} classes")
    confusion = confusion.astype(np.int64, copy=False)
    hits, truth, predicted = (np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    count = int(confusion.sum())
    occurs = (truth + predicted) > 0
    scores = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, truth),
        "f1": _ratio(2 * hits, truth + predicted),
    }
    return {
        "count": count,
        "loss": float(loss_sum) / count if count else 0.0,
        "top1": int(hits.sum()) / count if count else 0.0,
        "top5": int(top5) / count if count else 0.0,
        **{name: _averages(values, truth, occurs, classes) for name, values in scores.items()},
        "macro_classes": int(occurs.sum()),
        "support": dict(zip(classes, truth.tolist(), strict=True)),
        "confusion": confusion.tolist(),
    }


def flat(summary: dict[str, Any]) -> dict[str, int | float]:
    """The scalars of `summarise` for one history line: `f1_macro`, `f1_weighted` and so on, nothing per class."""
    scalars = {key: summary[key] for key in ("count", "loss", "top1", "top5")}
    for name in ("precision", "recall", "f1"):
        for average in ("macro", "weighted"):
            scalars[f"{name}_{average}"] = summary[name][average]
    return scalars


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above), dtype=np.float64), where=below != 0)


def check_metric(metric: str, classes: int, where: str) -> None:
    """ConfigError where `metric`, which the option `where` wants to decide by, has one value whatever is predicted."""
    if metric == "top5" and classes <= _TOP:
        raise ConfigError(
            "this metric is always 1 on this data and can decide nothing",
            where=where,
            found=f"top5 with {classes} classes: every class is among the {_TOP} highest",
            valid="top1, loss, f1_macro, f1_weighted; top5 from 6 classes on",
            fix=f"set {override(where, 'top1')}",
        )


def _averages(values: np.ndarray, truth: np.ndarray, occurs: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "macro": float(values[occurs].mean()) if occurs.any() else 0.0,
        "weighted": float((values * truth).sum() / max(1, truth.sum())),
        "per_class": dict(zip(classes, values.tolist(), strict=True)),
    }
