"""How what a network says of an image is read: as one class of several, or as an answer for each class by itself.

Whoever gives answers of a trained network (evaluations, predictions, exported files, servers) asks `Task.reading`, so
that all of them give the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from raycls.tasks.scores.multilabel import mean_average_precision, sigmoid
from raycls.tasks.scores.probabilities import Probabilities

__all__ = ["ONE", "SEVERAL", "Reading"]

_TIE = 1e-6
"""Probabilities that differ by less in the run's own answer are one as far as float32 can tell."""


class Reading(Protocol):
    """`logits` are `[B, C]`; `truth` is `[N] int64`, the class of each image, or `[N, C] bool`, its classes."""

    several: bool
    """Whether an image has any number of classes: those whose probabilities reach their thresholds."""
    operator: str
    """The name of the operator of ONNX that makes probabilities of logits."""
    score: str
    """What `scored` measures, by its name in a summary."""

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """`[B, C] float64`; a row with a NaN or an infinity is all NaN."""
        ...

    def of_tensor(self, logits: Tensor) -> Tensor:
        """The probabilities of a tensor, in its type."""
        ...

    def mean(self, logits: Tensor) -> Tensor:
        """The logits of the mean of the probabilities that several `logits` `[V, B, C]` give, `[B, C]`."""
        ...

    def scored(self, scores: np.ndarray, truth: np.ndarray) -> float:
        """How good `scores` `[N, C]` are, logits or probabilities; higher is better."""
        ...

    def same(self, first: np.ndarray, second: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
        """Of which images two networks with these probabilities say the same, `[N] bool`; ties of `first` count."""
        ...

    def divergence(self, first: np.ndarray, second: np.ndarray) -> float:
        """Kullback-Leibler, from the probabilities `first` to `second`, in nats: the mean over images."""
        ...


@dataclass(frozen=True)
class _One:
    """Softmax, and the likeliest class."""

    several = False
    operator = "Softmax"
    score = "top1"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        valid = np.isfinite(logits).all(axis=1, keepdims=True)
        found = Probabilities(np.where(valid, logits, 0.0)).rows(slice(0, len(logits)))
        return np.where(valid, found, np.nan)

    def of_tensor(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def mean(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))

    def scored(self, scores: np.ndarray, truth: np.ndarray) -> float:
        return float((scores.argmax(1) == truth).mean())

    def same(self, first: np.ndarray, second: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
        rows, one, other = np.arange(len(first)), first.argmax(1), second.argmax(1)
        return (one == other) | (first[rows, one] - first[rows, other] < _TIE)

    def divergence(self, first: np.ndarray, second: np.ndarray) -> float:
        return _divergence(first, second)


@dataclass(frozen=True)
class _Several:
    """Sigmoid of each class, and the classes whose probabilities reach their thresholds."""

    several = True
    operator = "Sigmoid"
    score = "map"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(logits).all(axis=1, keepdims=True), sigmoid(logits), np.nan)

    def of_tensor(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def mean(self, logits: Tensor) -> Tensor:
        """The logarithms of the odds of the means."""
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)

    def scored(self, scores: np.ndarray, truth: np.ndarray) -> float:
        return mean_average_precision(scores, truth)

    def same(self, first: np.ndarray, second: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
        least = 0.5 if thresholds is None else thresholds
        return (((first >= least) == (second >= least)) | (np.abs(first - least) < _TIE)).all(1)

    def divergence(self, first: np.ndarray, second: np.ndarray) -> float:
        return _divergence(first, second) + _divergence(1 - first, 1 - second)


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    least = 1e-30
    return float((first * np.log(np.maximum(first, least) / np.maximum(second, least))).sum(1).mean())


ONE: Reading = _One()
SEVERAL: Reading = _Several()
