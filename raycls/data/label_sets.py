"""Any number of labels per sample: every distinct set of classes once, `[K, C] bool`, and which set a sample has.

So a sample keeps one integer, whatever its labels are: `labels` are positions in the sets then, and positions in the
classes where there are no sets (None), as everywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from raycls.errors import DataError
from raycls.quantities import plural

__all__ = ["as_sets", "label_names", "refuse_unlabelled", "reordered", "samples_of"]


def as_sets(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of `matrix` `[N, C] bool` in ascending order, `[K, C]`, and the one of each sample, `[N]`."""
    sets, labels = np.unique(matrix.astype(bool), axis=0, return_inverse=True)
    return sets, labels.reshape(-1).astype(np.int64)


def reordered(sets: np.ndarray, position: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """The sets over `size` other classes: the class in column `j` is the one at `position[j]`, or none at -1."""
    moved = np.zeros((len(sets), size), bool)
    for column, to in enumerate(position):
        if to >= 0:
            moved[:, to] |= sets[:, column]
    return moved


def label_names(classes: Sequence[str], sets: np.ndarray | None) -> tuple[str, ...]:
    """The name of every value that `labels` may have: a class, or the classes of a set as a JSON list."""
    if sets is None:
        return tuple(classes)
    columns = [np.flatnonzero(row).tolist() for row in sets]
    return tuple(json.dumps([classes[index] for index in each], ensure_ascii=False) for each in columns)


def samples_of(labels: np.ndarray, sets: np.ndarray | None, size: int) -> np.ndarray:
    """How many samples have each of `size` classes, `[C] int64`."""
    counts = np.bincount(labels, minlength=size if sets is None else len(sets))
    return counts if sets is None else counts @ sets.astype(np.int64)


def refuse_unlabelled(matrix: np.ndarray, place: str) -> None:
    """DataError where none of the samples at `place` has a class: `[N, C] bool`."""
    if not matrix.any():
        raise DataError(
            "no image of the data has a label, so there is nothing to learn",
            where=place,
            found=f"{plural(len(matrix), 'image')}, each with an empty list of labels",
            valid="images with any number of classes, of which some image has each",
            fix="if the labels are in another column or field, name it in data.source.args.columns.label",
        )
