"""Whether probabilities mean what they say, and the temperature that makes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raycls.tasks.scores.probabilities import Probabilities, blocks_of

__all__ = ["BINS", "bin_of", "brier_of", "calibration", "expected_error", "fit_temperature"]

BINS = 15
"""Bins of equal width of the expected calibration error, as in Guo et al. 2017, section 2."""
_LOWEST, _HIGHEST = 0.01, 100.0
"""Between these a temperature is looked for."""
_TOLERANCE = 1e-10
_STEPS = 100


def calibration(probabilities: Probabilities, labels: np.ndarray) -> dict[str, Any]:
    """`nll`, `brier`, `ece` and the `bins` of the latter, each with `from`, `to`, `count`, `confidence`, `accuracy`.

    `nll` is the mean negative logarithm of the probability of the class. `brier` is the mean squared distance of the
    probabilities to the class as 0 and 1, summed over classes (Brier 1950): 0 to 2. `ece` is the mean distance of
    confidence and accuracy over the bins, weighted by their rows; a bin has its upper end and not its lower one.
    """
    confidence, right = probabilities.confidence(), probabilities.predicted == labels
    ece, bins = expected_error(confidence, right)
    return {
        "nll": float(-probabilities.log_of(labels).mean()),
        "brier": float(brier_of(probabilities, labels).mean()),
        "ece": ece,
        "bins": bins,
    }


def brier_of(probabilities: Probabilities, labels: np.ndarray) -> np.ndarray:
    """The squared distance of each row's probabilities to its class, `[N]` float64."""
    squares = np.empty(len(probabilities))
    for block in blocks_of(probabilities.logits):
        squares[block] = np.square(probabilities.rows(block)).sum(axis=1)
    return squares - 2 * np.exp(probabilities.log_of(labels)) + 1


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence, `[N]`, from 0 to `BINS - 1`."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)


def expected_error(confidence: np.ndarray, right: np.ndarray) -> tuple[float, list[dict[str, Any]]]:
    """The expected calibration error, and its bins; one without rows has None for its means."""
    position, edges = bin_of(confidence), np.linspace(0.0, 1.0, BINS + 1).tolist()
    count = np.bincount(position, minlength=BINS)
    sure = np.bincount(position, confidence, minlength=BINS)
    hit = np.bincount(position, right.astype(np.float64), minlength=BINS)
    bins = [
        {
            "from": edges[index],
            "to": edges[index + 1],
            "count": int(count[index]),
            "confidence": float(sure[index] / count[index]) if count[index] else None,
            "accuracy": float(hit[index] / count[index]) if count[index] else None,
        }
        for index in range(BINS)
    ]
    return float(np.abs(sure - hit).sum() / len(confidence)), bins


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature from 0.01 to 100 that gives the least negative log-likelihood; None where there is no least one.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. The likelihood is convex in the inverse
    temperature, whose Newton steps are taken inside the interval that the sign of the slope leaves. There is no minimum
    where every row is predicted right, or where the network says nothing of the class.
    """
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    if _slope(logits, labels, low)[0] >= 0 or _slope(logits, labels, high)[0] <= 0:
        return None
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(logits, labels, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        following = inverse - slope / curvature if curvature > 0 else low
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - inverse) <= _TOLERANCE * inverse:
            break
        inverse = following
    return 1 / inverse


def _slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """The first and second derivative of the summed negative log-likelihood by the inverse temperature.

    The mean logit under the probabilities less that of the class, and the variance of the logit.
    """
    slope = curvature = 0.0
    for block in blocks_of(logits):
        values = logits[block].astype(np.float64)
        values -= values.max(axis=1, keepdims=True)
        weights = np.exp(values * inverse)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * values).sum(axis=1)
        slope += float((mean - values[np.arange(len(values)), labels[block]]).sum())
        curvature += float((weights * np.square(values - mean[:, None])).sum())
    return slope, curvature
