"""How much each training sample weighs: `data.weight` names the column that says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raycls.data.samples import Keys
from raycls.errors import DataError
from raycls.quantities import first_names, plural

__all__ = ["Weights"]

_FIX = "correct the column, or leave data.weight out"
_VALID = "a number of at least 0 for each training image"


@dataclass(frozen=True)
class Weights:
    """The weights of the samples of a split."""

    column: str
    values: np.ndarray
    """As they stand in the column, `[n] float64`."""
    mean: float
    """Over all samples that the run was started with: it stays what it is where some are left out later."""

    @classmethod
    def of(cls, column: str, texts: Keys, keys: Keys) -> Weights:
        """The weights in a column, whose `texts` are those of the samples `keys`. DataError where one is no weight."""
        values = np.fromiter(map(_number, texts), np.float64, len(texts))
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0))).tolist()
        if wrong:
            first = texts[wrong[0]]
            raise DataError(
                f"{plural(len(wrong), 'training image')} without a weight",
                where=f"data.weight: {column}",
                found=f"{first_names([keys[row] for row in wrong[:5]], len(wrong))}; the first has {first!r}",
                valid=_VALID,
                fix=_FIX,
            )
        if not values.any():
            raise DataError(
                "no training image weighs anything",
                where=f"data.weight: {column}",
                found=f"0 for all of {plural(len(values), 'image')}",
                valid=f"{_VALID}, some of them above 0",
                fix=_FIX,
            )
        return cls(column, values, float(values.mean()))

    def weight(self, index: int) -> np.ndarray:
        """How much the sample at `index` counts in the loss, `[] float32`: 1 in the mean over the training samples."""
        return np.asarray(self.values[index] / self.mean, np.float32)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
