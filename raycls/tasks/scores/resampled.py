"""The numbers of an evaluation whose rows are drawn anew, as a bootstrap does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raycls.tasks.scores.calibration import bin_of

__all__ = ["Resampled"]


class Resampled:
    """From how often each of `N` rows is in a resample to the numbers of that resample.

    `labels` and `predicted` are classes below `size`, `confidence` is the probability of the predicted class, `means`
    are values of each row whose means are wanted, by name; all `[N]`.
    """

    def __init__(
        self,
        labels: np.ndarray,
        predicted: np.ndarray,
        confidence: np.ndarray,
        size: int,
        means: Mapping[str, np.ndarray],
    ) -> None:
        self._size, self._labels, self._predicted, self._means = size, labels, predicted, means
        self._right = labels == predicted
        self._bins, self._gap = bin_of(confidence), confidence - self._right

    def __call__(self, times: np.ndarray) -> dict[str, float]:
        """The means and `ece`; `times` are integers, `[N]`."""
        count = times.sum()
        # products and sums, no dot product: BLAS adds otherwise with another number of threads
        found = {name: float((times * values).sum() / count) for name, values in self._means.items()}
        found["ece"] = float(np.abs(np.bincount(self._bins, times * self._gap)).sum() / count)
        return found

    def f1_macro(self, times: np.ndarray) -> float:
        """Macro F1; `times` are integers, `[N]`."""
        truth = np.bincount(self._labels, times, minlength=self._size)
        predicted = np.bincount(self._predicted, times, minlength=self._size)
        hits = np.bincount(self._labels, times * self._right, minlength=self._size)
        occurs = truth + predicted > 0
        return float((2 * hits[occurs] / (truth + predicted)[occurs]).mean())
