"""From the logits of a classifier to answers: probabilities, and the classes that they speak for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Answers", "answers", "probabilities"]


@dataclass(frozen=True)
class Answers:
    """The likeliest classes of `B` samples, the likeliest one first."""

    probabilities: np.ndarray
    """Of every class, in the order of the classes, `[B, C] float64`; each row adds up to 1."""
    classes: np.ndarray
    """Positions of the `k` likeliest classes, `[B, k] int64`."""
    top: np.ndarray
    """Their probabilities, `[B, k] float64`."""
    valid: np.ndarray
    """Whether the logits of a sample are finite, `[B] bool`; where they are not, its probabilities are NaN."""


def probabilities(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Softmax in float64 of `logits` `[B, C]` divided by `temperature`; a row with a NaN or an infinity is all NaN.

    The highest logit is subtracted first, so that nothing overflows.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    finite = np.isfinite(scaled).all(axis=1, keepdims=True)
    scaled = np.where(finite, scaled, 0.0)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.where(finite, powers / powers.sum(axis=1, keepdims=True), np.nan)


def answers(logits: np.ndarray, k: int, *, temperature: float = 1.0) -> Answers:
    """The `k` likeliest classes of each row of `logits` `[B, C]`, or all where there are fewer.

    They are ordered by their logits; of two that are equal, the class that comes first in the order of the classes is
    first. So the answer is the same whoever computes it.
    """
    found = probabilities(logits, temperature=temperature)
    order = np.argsort(-np.asarray(logits, np.float64), axis=1, kind="stable")[:, : max(1, k)]
    return Answers(found, order, np.take_along_axis(found, order, axis=1), np.isfinite(found[:, 0]))
