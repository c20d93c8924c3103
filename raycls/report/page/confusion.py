"""Which classes are taken for which others: the matrix where it is small, its worst cells and a picture where not."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Confusion", "confusion"]

_MOST_SHOWN = 20
"""Classes of a matrix that is shown with its numbers."""
_MOST_CELLS = 125
"""Cells on a side of the picture: of more classes several share one."""
_MOST_PAIRS = 40
_INK = (43, 108, 216)


@dataclass(frozen=True)
class Confusion:
    rows: list[dict[str, object]]
    """`name`, and `cells` with `count`, `part` (of the row) and `hit`; empty where there are too many classes."""
    picture: str
    """A `data:` URI of a PNG, its rows the classes; empty where `rows` are shown."""
    together: int
    """How many classes share a cell of the picture."""
    pairs: list[dict[str, object]]
    """The most frequent errors: `truth`, `predicted`, `count`, and `part` of the images of `truth`."""
    errors: int
    left_out: int
    """Pairs with errors that are not among `pairs`."""


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Confusion:
    """Of a `[C, C]` matrix with a row per true class and a column per predicted one."""
    totals = matrix.sum(axis=1)
    parts = matrix / np.maximum(totals, 1)[:, None]
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[: min(_MOST_PAIRS, int((off > 0).sum()))]
    pairs: list[dict[str, object]] = [
        {
            "truth": classes[row],
            "predicted": classes[column],
            "count": int(off[row, column]),
            "part": float(parts[row, column]),
        }
        for row, column in zip(*(axis.tolist() for axis in np.unravel_index(order, off.shape)), strict=True)
    ]
    small = len(classes) <= _MOST_SHOWN
    together = -(-len(classes) // _MOST_CELLS)
    return Confusion(
        rows=_rows(matrix, parts, classes) if small else [],
        picture="" if small else _picture(matrix, together),
        together=together,
        pairs=pairs,
        errors=int(off.sum()),
        left_out=int((off > 0).sum()) - len(pairs),
    )


def _rows(matrix: np.ndarray, parts: np.ndarray, classes: Sequence[str]) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "cells": [
                {"count": int(count), "part": round(float(part), 3), "hit": row == column}
                for column, (count, part) in enumerate(zip(matrix[row], parts[row], strict=True))
            ],
        }
        for row, name in enumerate(classes)
    ]


def _picture(matrix: np.ndarray, together: int) -> str:
    """A pixel per cell, the more opaque the more of its row it holds: readable on a light and on a dark page."""
    from PIL import Image

    starts = np.arange(0, len(matrix), together)
    cells = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    parts = cells / np.maximum(cells.sum(axis=1), 1)[:, None]
    pixels = np.empty((*cells.shape, 4), np.uint8)
    pixels[..., :3] = _INK
    pixels[..., 3] = np.round(255 * np.sqrt(parts))  # the root: a hundredth of a row is still seen
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
