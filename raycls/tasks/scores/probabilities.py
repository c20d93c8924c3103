"""Logits of many rows as probabilities, a class or a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TOP", "Probabilities", "blocks_of", "highest", "highest_of"]

TOP = 5
"""As many classes as the metric top5 looks at."""

_BLOCK_VALUES, _BLOCK_ROWS = 1 << 21, 1 << 16
"""How many probabilities a block has at most, 16 MB in float64, and how many rows."""


def blocks_of(logits: np.ndarray) -> Iterator[slice]:
    """The rows in pieces that are small enough to work on, whatever the number of classes."""
    count, size = logits.shape
    rows = min(_BLOCK_ROWS, max(1, _BLOCK_VALUES // max(1, size)))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def highest(logits: Tensor) -> Tensor:
    """The classes of the `TOP` highest of `logits` `[B, C]`, or of all, the highest first: `[B, k] int64` on the CPU.

    Whoever counts, writes or answers asks here, so that all name the same one of classes that are tied: which one
    depends on how many are looked for, and on the device.
    """
    return logits.cpu().double().topk(min(TOP, logits.shape[1]), dim=1).indices


def highest_of(logits: np.ndarray, most: int) -> np.ndarray:
    """The `most` highest of `logits` `[N, C]`, or all, `[N, k] int64`: first those of `highest`, then of tied ones the
    first in the order of the classes."""
    import torch  # what compares runs from their files needs none of it

    best = highest(torch.from_numpy(logits)).numpy()
    if most > best.shape[1] < logits.shape[1]:
        order = np.argsort(-logits, axis=1, kind="stable")
        others = (order[:, :, None] != best[:, None, :]).all(axis=2)
        best = np.concatenate([best, order[others].reshape(len(logits), -1)], axis=1)
    return best[:, :most]


class Probabilities:
    """`softmax(logits / temperature)` in float64, without ever holding all of it.

    `logits` is `[N, C]` float32; beside it this object has three numbers per row, and a block of 16 MB while it works.
    """

    def __init__(self, logits: np.ndarray, temperature: float = 1.0) -> None:
        self.logits, self.temperature = logits, temperature
        count, self.size = logits.shape
        self._log_sum = np.empty(count)
        """Logarithm of the sum that a row's exponentials are divided by."""
        self.predicted = np.empty(count, np.int64)
        """The class with the highest logit of each row, `[N]`, as the confusion matrix has it."""
        for block in blocks_of(self.logits):
            scaled = self._scaled(block)
            highest = scaled.max(axis=1, keepdims=True)
            with np.errstate(invalid="ignore"):  # inf - inf of a network that diverged is told by `finite`
                self._log_sum[block] = highest[:, 0] + np.log(np.exp(scaled - highest).sum(axis=1))
            self.predicted[block] = self.top(block)[0][:, 0]

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def finite(self) -> np.ndarray:
        """Whether each row has probabilities, `[N] bool`: those of NaN or infinite logits are none."""
        return np.isfinite(self._log_sum)

    def at(self, temperature: float) -> Probabilities:
        """The same logits at another temperature."""
        return self if temperature == self.temperature else Probabilities(self.logits, temperature)

    def rows(self, block: slice) -> np.ndarray:
        """The probabilities of some rows, `[n, C]` float64."""
        return np.exp(self._scaled(block) - self._log_sum[block, None])

    def column(self, label: int) -> np.ndarray:
        """The probability of one class, `[N]` float64."""
        return np.exp(self.logits[:, label].astype(np.float64) / self.temperature - self._log_sum)

    def log_of(self, labels: np.ndarray) -> np.ndarray:
        """The logarithm of the probability of the class of each row in `labels`, `[N]` float64."""
        chosen = self.logits[np.arange(len(self)), labels].astype(np.float64)
        return chosen / self.temperature - self._log_sum

    def confidence(self) -> np.ndarray:
        """The probability of the predicted class of each row, `[N]` float64."""
        return np.exp(self.log_of(self.predicted))

    def top(self, block: slice, most: int = TOP) -> tuple[np.ndarray, np.ndarray]:
        """The `most` most probable classes of some rows, and their probabilities, `[n, most]`, the highest first."""
        best = highest_of(self.logits[block], most)
        values = np.take_along_axis(self.logits[block], best, axis=1).astype(np.float64)
        return best, np.exp(values / self.temperature - self._log_sum[block, None])

    def _scaled(self, block: slice) -> np.ndarray:
        return self.logits[block].astype(np.float64) / self.temperature
