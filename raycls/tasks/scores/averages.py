"""How much precision, recall and F1, averaged over classes, hang on single rows: their standard errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raycls.tasks.scores.intervals import deviation

__all__ = ["averages"]

_Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From the hits, the rows and the predictions of classes."""


def averages(labels: np.ndarray, predicted: np.ndarray, size: int) -> dict[str, tuple[float, float]]:
    """`precision`, `recall` and `f1` as `macro` and `weighted`, each with its standard error: `f1_macro` and so on.

    `labels` and `predicted` are classes below `size`, `[N]`. The standard error is the jackknife's (Tukey 1958; Efron
    and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11): each row in turn is left out, exactly, and
    with it a class that no other row has. A bootstrap of few rows per class draws resamples that lack some of them, and
    a macro average over the others is that of another problem.
    """
    count = len(labels)
    truth, guessed = (np.bincount(each, minlength=size).astype(np.float64) for each in (labels, predicted))
    hit = (labels == predicted).astype(np.float64)
    hits, missed = np.bincount(labels, hit, minlength=size), 1 - hit
    occurs = (truth + guessed > 0).astype(np.float64)
    left_of_truth = (hits[labels] - hit, truth[labels] - 1, guessed[labels] - hit)
    left_of_guess = (hits[predicted] - hit, truth[predicted] - hit, guessed[predicted] - 1)
    gone = missed * ((left_of_guess[1] + left_of_guess[2] > 0) - 1.0) + (left_of_truth[1] + left_of_truth[2] > 0) - 1.0
    found: dict[str, tuple[float, float]] = {}
    for name, score in _SCORES.items():
        values = score(hits, truth, guessed)
        of_truth, of_guess = score(*left_of_truth), score(*left_of_guess)
        change = of_truth - values[labels] + missed * (of_guess - values[predicted])
        macro = (values.sum() + change) / np.maximum(occurs.sum() + gone, 1)
        found[f"{name}_macro"] = float(values.sum() / occurs.sum()), deviation(macro)
        weighed = of_truth * (truth[labels] - 1) - values[labels] * truth[labels]
        weighed += missed * (of_guess - values[predicted]) * truth[predicted]
        weighted = ((values * truth).sum() + weighed) / max(count - 1, 1)
        found[f"{name}_weighted"] = float((values * truth).sum() / count), deviation(weighted)
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


_SCORES: dict[str, _Score] = {
    "precision": lambda hits, truth, guessed: _ratio(hits, guessed),
    "recall": lambda hits, truth, guessed: _ratio(hits, truth),
    "f1": lambda hits, truth, guessed: _ratio(2 * hits, truth + guessed),
}
