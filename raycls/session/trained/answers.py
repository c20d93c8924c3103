"""From the logits of a classifier to answers: probabilities, and the classes that they speak for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raycls.tasks.scores.multilabel import sigmoid
from raycls.tasks.scores.probabilities import Probabilities, highest_of

__all__ = ["Answers", "answers"]


@dataclass(frozen=True)
class Answers:
    """The likeliest classes of `B` samples, the likeliest one first."""

    probabilities: np.ndarray
    """Of every class, in the order of the classes, `[B, C] float64`; of one class per image each row adds up to 1."""
    classes: np.ndarray
    """Positions of the `k` likeliest classes, `[B, k] int64`."""
    top: np.ndarray
    """Their probabilities, `[B, k] float64`."""
    valid: np.ndarray
    """Whether the logits of a sample are finite, `[B] bool`; where they are not, its probabilities are NaN."""
    labels: np.ndarray | None = None
    """Which classes a sample has, `[B, C] bool`, where it may have any number."""


def answers(logits: np.ndarray, k: int, *, temperature: float = 1.0, thresholds: np.ndarray | None = None) -> Answers:
    """The `k` likeliest classes of each row of `logits` `[B, C]`, or all where there are fewer.

    With `thresholds` `[C]` a sample has any number of classes: those whose own probabilities reach them. To the bit
    what an evaluation writes of the same logits, and of classes that are tied the same one.
    """
    valid = np.asarray(np.isfinite(logits).all(axis=1, keepdims=True))
    kept, every = np.where(valid, logits, 0.0), slice(0, len(logits))
    if thresholds is None:
        found = Probabilities(kept, temperature)
        rows, (classes, top), labels = found.rows(every), found.top(every, max(1, k)), None
    else:
        rows = sigmoid(kept)
        classes = highest_of(kept, max(1, k))
        top, labels = np.take_along_axis(rows, classes, axis=1), (rows >= thresholds) & valid
    return Answers(np.where(valid, rows, np.nan), classes, np.where(valid, top, np.nan), valid[:, 0], labels)
