"""Confident learning: which labels a trained network contradicts (Northcutt, Jiang and Chuang, 2021, sections 3 and 4).

A network is confident of a class where its probability reaches the mean of that class over the images that have its
label. An image of which it is confident in another class than its label is off the diagonal of the confident joint.
These are ordered by their normalised margin, the probability of the label less that of the other class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Suspect", "suspects"]


@dataclass(frozen=True)
class Suspect:
    """An image whose label is contradicted."""

    image: int
    suggested: int
    """The class that the network is confident of."""
    of_label: float
    """The probability of its label."""
    of_suggested: float


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """The images whose label is contradicted, the most doubtful first.

    `probabilities` is `[N, C]`, NaN in the rows of images that were not predicted; `labels` `[N]` are classes, -1 for
    one that the network does not know.
    """
    rows = np.flatnonzero((labels >= 0) & np.isfinite(probabilities).all(axis=1))
    known, own = probabilities[rows], labels[rows]
    counts = np.bincount(own, minlength=known.shape[1])
    of_label = known[np.arange(len(rows)), own]
    with np.errstate(invalid="ignore", divide="ignore"):
        thresholds = np.bincount(own, of_label, minlength=known.shape[1]) / counts  # NaN of a class without an image
    confident = np.where(known >= thresholds, known, -1.0)
    best = confident.argmax(axis=1)
    found = np.flatnonzero((confident[np.arange(len(rows)), best] >= 0) & (best != own))
    margins = of_label[found] - known[found, best[found]]
    return [
        Suspect(int(rows[row]), int(best[row]), float(of_label[row]), float(known[row, best[row]]))
        for row in found[np.argsort(margins, kind="stable")].tolist()
    ]
