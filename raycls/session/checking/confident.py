"""Confident learning: which labels a trained network contradicts (Northcutt, Jiang and Chuang, 2021, sections 3 and 4).

A network is confident of a class where its probability reaches the mean of that class over the images that have its
label. An image of which it is confident in another class than its label is off the diagonal of the confident joint: its
label is contradicted. Images are ordered by their margin, the probability of the label less that of the likeliest other
class. So those come next whose label the network has learned, but less surely than others: a wrong label that it was
trained on is often one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Suspect", "suspects"]


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubted."""

    image: int
    suggested: int
    """The likeliest other class; where the label is contradicted, that which the network is confident of."""
    of_label: float
    """The probability of its label."""
    of_suggested: float
    contradicted: bool


def suspects(probabilities: np.ndarray, labels: np.ndarray, least: int) -> list[Suspect]:
    """The images whose label is contradicted, or the `least` first where these are fewer; the most doubtful first.

    `probabilities` is `[N, C]`, NaN in the rows of images that were not predicted; `labels` `[N]` are classes, -1 for
    one that the network does not know.
    """
    rows = np.flatnonzero((labels >= 0) & np.isfinite(probabilities).all(axis=1))
    known, own, every = probabilities[rows], labels[rows], np.arange(len(rows))
    counts = np.bincount(own, minlength=known.shape[1])
    of_label = known[every, own]
    with np.errstate(invalid="ignore", divide="ignore"):
        thresholds = np.bincount(own, of_label, minlength=known.shape[1]) / counts  # NaN of a class without an image
    confident = np.where(known >= thresholds, known, -1.0)
    best = confident.argmax(axis=1)
    contradicted = (confident[every, best] >= 0) & (best != own)
    others = known.copy()
    others[every, own] = -1.0
    suggested = np.where(contradicted, best, others.argmax(axis=1))
    margins = of_label - known[every, suggested]
    order = np.argsort(margins, kind="stable")
    order = np.concatenate([order[contradicted[order]], order[~contradicted[order]]])
    return [
        Suspect(
            int(rows[row]),
            int(suggested[row]),
            float(of_label[row]),
            float(known[row, suggested[row]]),
            bool(contradicted[row]),
        )
        for row in order[: max(least, int(contradicted.sum()))].tolist()
    ]
