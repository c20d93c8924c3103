"""What a source returned: checked, and its classes in their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raycls.data.label_sets import as_sets, refuse_unlabelled, reordered
from raycls.data.names import arrange, same_form
from raycls.data.samples import Samples
from raycls.errors import DataError

__all__ = ["arranged"]


def arranged(
    samples: Samples, least: int, place: str
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """The classes in their order, the labels `[N] int64` that follow it, their sets, and what is to be told of them."""
    names, labels = list(samples.classes), np.asarray(samples.labels)
    if len(set(names)) < len(names) or not all(isinstance(name, str) and same_form(name) for name in names):
        raise DataError("class names must be unique strings", found=", ".join(map(repr, names[:10])))
    if samples.labels is None:
        return tuple(names), np.zeros(len(samples.keys), np.int64), None, ()
    if labels.ndim == 2 and labels.dtype == bool and labels.shape[1] == len(names):
        if least > 1:  # an evaluation may well be of images without any class
            refuse_unlabelled(labels, place)
        classes, moved, notes = arrange(names, np.arange(len(names)), ordered=samples.ordered)
        sets, labels = as_sets(reordered(labels, moved, len(classes)))
        return classes, labels, sets, notes
    _refuse_few(names, least)
    if labels.ndim != 1 or (len(labels) and labels.dtype.kind not in "iu"):
        raise DataError(
            "the source's labels are neither integers [N] nor booleans [N, classes]",
            found=f"{labels.dtype} {list(labels.shape)}",
        )
    labels = labels.astype(np.int64)
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(names)):
        raise DataError("the source has a label outside its classes", valid=f"0 to {len(names) - 1}")
    classes, labels, notes = arrange(names, labels, ordered=samples.ordered)
    _refuse_few(classes, least)
    return classes, labels, None, notes


def _refuse_few(classes: Sequence[str], least: int) -> None:
    if len(classes) < least:
        raise DataError(
            "there are fewer than two classes",
            found=", ".join(classes) or "none",
            fix="add images of another class; or, where the class folders are one level further down, let "
            "data.source.path name that level",
        )
