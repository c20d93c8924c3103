"""What an evaluation says, as the page shows it: headline numbers, classes, calibration, and the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.report.axis import number
from raycls.report.evaluated import Samples, value_of
from raycls.report.page.balance import Balance

__all__ = ["Figure", "Wrong", "class_rows", "figures", "reliability", "worst", "wrong_at"]

_TITLES = {
    "top1": "accuracy",
    "top5": "top-5 accuracy",
    "map": "mean average precision",
    "exact": "images with every class right",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "auroc_macro": "macro AUROC",
    "average_precision_macro": "macro average precision",
    "ece": "calibration error (ECE)",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "f1_weighted": "weighted F1",
    "precision_weighted": "weighted precision",
    "recall_weighted": "weighted recall",
    "auroc_weighted": "weighted AUROC",
    "average_precision_weighted": "weighted average precision",
    "loss": "loss",
}
"""Numbers of a summary in the order of the page, and how it calls them."""
_HEADLINES = ("top1", "top5", "map", "exact", "f1_macro", "f1_micro", "auroc_macro", "ece", "nll")
_NO_SHARES = ("nll", "brier", "loss")
_METHODS = {
    "wilson": "Wilson",
    "jackknife": "jackknife",
    "bootstrap": "bootstrap",
    "bootstrap-pivotal": "bootstrap (pivotal)",
}
_TOP5 = 5


@dataclass(frozen=True)
class Figure:
    """A number of an evaluation, in print."""

    name: str
    title: str
    text: str
    interval: str
    method: str
    bar: tuple[float, float, float] | None
    """(low, value, high) in percent of the width of a bar, for a share with an interval."""
    headline: bool
    outside: bool
    """Whether the interval leaves the value out."""


def figures(summary: Mapping[str, Any], classes: int) -> list[Figure]:
    """The numbers of a summary with their intervals. Top-5 of five classes is no number."""
    intervals: Mapping[str, Any] = summary.get("intervals") or {}
    found: list[Figure] = []
    others = [name for name, value in summary.items() if type(value) is float and name not in _TITLES]
    for name in [*_TITLES, *others]:
        value = value_of(summary, name)
        if value is None or (name == "top5" and classes <= _TOP5):
            continue
        share = name not in _NO_SHARES and name not in others
        interval = _interval(intervals.get(name))
        low, high, method = interval or (0.0, 0.0, "")
        found.append(
            Figure(
                name,
                _TITLES.get(name, name),
                _text(value, share),
                f"{_text(low, share).removesuffix(' %')} to {_text(high, share)}" if interval else "",
                _METHODS.get(method, method),
                (100 * low, 100 * value, 100 * high) if interval and share else None,
                name in _HEADLINES or name in others,
                bool(interval) and not low <= value <= high,
            )
        )
    return found


def class_rows(summary: Mapping[str, Any], balance: Balance | None) -> list[dict[str, Any]]:
    """A row per class, the lowest F1 first; classes without images last."""
    matrix, support = np.array(summary["confusion"], np.int64), summary["support"]
    names = list(support)
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    rows = [
        {
            "name": name,
            "count": support[name],
            "trained": balance.counts.get(name, {}).get("train", 0) if balance else None,
            **{metric: _per_class(summary, metric, name) for metric in ("precision", "recall", "f1", "auroc")},
            "other": names[int(off[index].argmax())] if off[index].any() else "",
            "other_count": int(off[index].max()),
        }
        for index, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: (row["count"] == 0, row["f1"]))


def reliability(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bins of the reliability diagram, each with its place in percent and its text; none where none were made."""
    bins: Sequence[Mapping[str, Any]] = (summary.get("calibration") or {}).get("bins") or []
    most = max((each["count"] for each in bins), default=0) or 1
    return [
        {
            "from": 100 * each["from"],
            "to": 100 * each["to"],
            "accuracy": 100 * (each["accuracy"] or 0.0),
            "confidence": 100 * (each["confidence"] or 0.0),
            "part": 100 * each["count"] / most,
            "text": f"confidence {each['from']:.0%} to {each['to']:.0%}: {each['count']:,} images, "
            f"{each['accuracy']:.1%} right, {each['confidence']:.1%} expected",
        }
        for each in bins
        if each["count"]
    ]


@dataclass(frozen=True)
class Wrong:
    """An image whose class was not predicted."""

    key: str
    path: str
    truth: str
    predicted: str
    confidence: float
    of_truth: float
    """The probability of the class that is true."""


def worst(samples: Samples, most: int) -> tuple[list[Wrong], list[Wrong]]:
    """(errors of the highest confidence, further errors of the highest loss), at most `most` of each."""
    wrong = np.flatnonzero(~samples.right)
    sure = wrong[np.argsort(-samples.confidence[wrong], kind="stable")][:most]
    by_loss = wrong[np.argsort(samples.truth[wrong], kind="stable")]
    lossy = by_loss[~np.isin(by_loss, sure)][:most]
    return [wrong_at(samples, row) for row in sure.tolist()], [wrong_at(samples, row) for row in lossy.tolist()]


def wrong_at(samples: Samples, row: int) -> Wrong:
    """The sample at `row`, which was taken for another class."""
    return Wrong(
        samples.keys[row],
        samples.paths[row],
        samples.classes[samples.label[row]],
        samples.classes[samples.predicted[row]],
        float(samples.confidence[row]),
        float(samples.truth[row]),
    )


def _interval(each: Mapping[str, Any] | None) -> tuple[float, float, str] | None:
    """(low, high, method) of an interval that has both ends."""
    low, high = (each or {}).get("low"), (each or {}).get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return float(low), float(high), str((each or {}).get("method", ""))


def _per_class(summary: Mapping[str, Any], metric: str, name: str) -> float | None:
    value = ((summary.get(metric) or {}).get("per_class") or {}).get(name)
    return float(value) if isinstance(value, int | float) else None


def _text(value: float, share: bool) -> str:
    return f"{100 * value:.2f} %" if share else number(value)
