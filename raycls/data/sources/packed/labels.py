"""The classes of samples whose labels are integers, strings, or lists of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raycls.data.names import in_order
from raycls.errors import DataError

__all__ = ["labels_of"]


def labels_of(
    labels: Sequence[Any], declared: Sequence[str] | None, place: Callable[[int], str], fix: Callable[[int], str]
) -> tuple[tuple[str, ...], np.ndarray, bool]:
    """The classes, the label of each sample `[N] int64` or its labels `[N, C] bool`, and whether the order is told.

    An integer is a position in the classes that are `declared`, or without them the name of a class; a sample has any
    number of classes where a label is a list. DataError at the `place` of a sample, with its `fix`.
    """
    several = any(isinstance(label, list) for label in labels)
    lists: list[list[Any]] = [label if isinstance(label, list) else [label] for label in labels]
    values: dict[Any, int] = {}
    for row, each in enumerate(lists):
        for value in each:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise DataError("a label is neither an integer nor a string", where=place(row), found=repr(value))
            values.setdefault(value, row)
    if declared is None:
        classes = tuple(in_order(set(map(str, values))))
        number = {name: index for index, name in enumerate(classes)}
        position = {value: number[str(value)] for value in values}
    else:
        classes = tuple(declared)
        number = {name: index for index, name in enumerate(classes)}
        position = {value: value if isinstance(value, int) else number.get(value, -1) for value in values}
        for value, row in values.items():
            if not 0 <= position[value] < len(classes):
                raise DataError(
                    "a label is none of the declared classes",
                    where=place(row),
                    found=repr(value),
                    valid=f"0 to {len(classes) - 1}",
                    fix=fix(row),
                )
    if not several:
        return classes, np.array([position[label] for label in labels], np.int64), declared is not None
    matrix = np.zeros((len(lists), len(classes)), bool)
    for row, each in zip(matrix, lists, strict=True):
        row[[position[value] for value in each]] = True
    return classes, matrix, declared is not None
