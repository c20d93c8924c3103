"""Of images with any number of classes: a table of the classes, and the images whose labels are most doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.report.evaluated import Evaluated, logits_of, open_predictions
from raycls.report.page.balance import Balance
from raycls.run.folder import RunFolder

__all__ = ["Doubt", "label_rows", "read_doubts", "threshold_words"]

_AT_THRESHOLDS = {"f1_macro": "macro F1", "f1_micro": "micro F1", "exact": "images with every class right"}


@dataclass(frozen=True)
class Doubt:
    """A class of an image about which the network and the label differ."""

    key: str
    path: str
    name: str
    probability: float
    others: str
    """The labels of the image, or where one was missed what was predicted."""


def label_rows(summary: Mapping[str, Any], balance: Balance | None) -> list[dict[str, Any]]:
    """A row per class, the lowest average precision first; classes without images last."""
    rows = [
        {
            "name": name,
            "count": each["support"],
            "trained": balance.counts.get(name, {}).get("train", 0) if balance else None,
            **{key: each[key] for key in ("average_precision", "precision", "recall", "f1", "f1_at_best_threshold")},
            "best_threshold": each["best_threshold"] if each["support"] else None,
        }
        for name, each in summary["per_class"].items()
    ]
    return sorted(rows, key=lambda row: (row["count"] == 0, row["average_precision"] or 0.0))


def threshold_words(summary: Mapping[str, Any]) -> str:
    """What the thresholds that were asked for give, in a sentence; empty where there are none."""
    found: Mapping[str, Any] | None = summary.get("threshold")
    if not found:
        return ""
    on = found["fitted_on"]
    how = f"from {found['rule']} on" if on is None else f"from thresholds of the classes that split {on['split']} gave"
    numbers = [f"{title} {100 * found[name]:.2f} %" for name, title in _AT_THRESHOLDS.items()]
    return f"Where a class is predicted {how}: {', '.join(numbers)}."


def read_doubts(folder: RunFolder, evaluated: Evaluated, most: int) -> tuple[list[Doubt], list[Doubt]] | None:
    """(classes that were predicted with the highest probability and are no labels, labels that were given the lowest),
    at most `most` of each and one of an image. None where the file of the predictions is gone, or has no logits.

    By the thresholds of the file, which are 0.5 unless the evaluation was asked for others.
    """
    from raycls.tasks.scores.multilabel import sigmoid

    opened = open_predictions(folder, evaluated, "logits")
    if opened is None:
        return None
    file, about = opened
    classes, thresholds = about["classes"], np.array(about["thresholds"])
    table = file.read(columns=["key", "path", "labels"])
    probabilities = np.concatenate([np.empty((0, len(classes))), *map(sigmoid, logits_of(file))])
    labels = table["labels"].to_pylist()
    place = {name: index for index, name in enumerate(classes)}
    truth = np.zeros(probabilities.shape, bool)
    for row, names in enumerate(labels):
        truth[row, [place[name] for name in names]] = True
    predicted = probabilities >= thresholds
    said = _most(np.where(predicted & ~truth, probabilities, -1.0), most)
    missed = _most(np.where(~predicted & truth, 1 - probabilities, -1.0), most)
    keys, paths = table["key"].to_pylist(), table["path"].to_pylist()

    def doubt(row: int, column: int, others: np.ndarray) -> Doubt:
        names = ", ".join(classes[index] for index in np.flatnonzero(others[row])) or "no class"
        return Doubt(keys[row], paths[row], classes[column], float(probabilities[row, column]), names)

    return [doubt(*where, truth) for where in said], [doubt(*where, predicted) for where in missed]


def _most(scores: np.ndarray, most: int) -> Sequence[tuple[int, int]]:
    """(row, column) of the highest score of each row, those above 0, the highest rows first."""
    columns = scores.argmax(1)
    best = scores[np.arange(len(scores)), columns]
    rows = np.argsort(-best, kind="stable")[:most]
    return [(row, int(columns[row])) for row in rows.tolist() if best[row] > 0]
