"""Folds for cross-validation: each sample is in the validation split of exactly one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from raycls.errors import DataError

__all__ = ["folded"]


def folded(
    splits: Mapping[str, np.ndarray], fold: tuple[int, int], divide: Callable[[np.ndarray, int], list[np.ndarray]]
) -> dict[str, np.ndarray]:
    """`splits` with the samples of `train` in the splits `train` and `val` of one fold; the others stay.

    `divide` makes so many parts of rows. DataError where the data has a val split of its own, or fewer samples than
    folds.
    """
    index, of = fold
    rows = splits.get("train", np.empty(0, np.int64))
    if len(splits.get("val", ())):
        raise DataError(
            "the data has a val split of its own, and folds are cut from train",
            where="data.fold",
            found=", ".join(f"{name} ({len(each)})" for name, each in splits.items()),
            valid="data with a train split, a test split or both, or none",
            fix="say that val is trained on, too: data.source.args.splits with a mapping of both to train",
        )
    if len(rows) < of:
        raise DataError("there are fewer samples than folds", where="data.fold.of", found=f"{len(rows)} samples")
    parts = divide(rows, of)
    others = [part for at, part in enumerate(parts) if at != index]
    return {**splits, "train": np.sort(np.concatenate(others)), "val": parts[index]}
