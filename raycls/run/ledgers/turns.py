"""Whether a balanced sampler drew what it promises, from what was trained alone.

Of n samples in C classes, class c (counted from 0, those with samples) is drawn (e n + c) // C times in the first e
epochs, and after each of them two samples of a class were drawn equally often or once more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["Turns"]


class Turns:
    """How often each sample was drawn, epoch by epoch. `labels` is the class of each sample by its id, `[N] int64`."""

    def __init__(self, labels: np.ndarray) -> None:
        self._class = np.unique(labels, return_inverse=True)[1]
        self._sizes = np.bincount(self._class)
        self._total = np.zeros(len(labels), np.int64)

    def close_epoch(self, epoch: int, drawn: np.ndarray, whole: bool, left_out: np.ndarray) -> Iterator[str]:
        """What is wrong with an epoch in which sample i was trained `drawn[i]` times. `left_out` `[N] bool` are not
        trained any more; an epoch that is not `whole` is the last one."""
        before, after = self._quota(epoch), self._quota(epoch + 1)
        found, wanted = np.bincount(self._class, drawn, len(self._sizes)).astype(np.int64), after - before
        fewer = np.bincount(self._class, left_out, len(self._sizes)) > 0
        wrong = (found > wanted) | ((found < wanted) & ~fewer & whole)
        for index in np.flatnonzero(wrong).tolist():
            yield f"epoch {epoch}: {found[index]} samples of class {index} were drawn, it needs {wanted[index]}"
        self._total += drawn
        least = after // self._sizes if whole else before // self._sizes
        most = -(-after // self._sizes)
        turn = (self._total > most[self._class]) | ((self._total < least[self._class]) & ~left_out)
        if turn.any():
            first = ", ".join(map(str, np.flatnonzero(turn)[:5].tolist()))
            yield f"epoch {epoch}: {int(turn.sum())} samples did not come in the turn of their class: {first}"

    def _quota(self, epochs: int) -> np.ndarray:
        classes = len(self._sizes)
        return (epochs * len(self._class) + np.arange(classes)) // classes
