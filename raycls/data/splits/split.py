"""Which sample belongs to which split, where the data does not say: stratified by class, seeded, exact.

Samples are lined up class by class, each class in a seeded order, and a split takes every k-th of the line.
So the sizes of the splits are exact over the whole data, and each class differs from its exact share by
less than one sample per split, however small the classes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from raycls.config.sections.data import SplitConfig
from raycls.data.order import permutation
from raycls.errors import DataError

__all__ = ["divide"]

SPLITS = ("train", "val", "test")


def divide(
    labels: np.ndarray,
    given: Mapping[str, Sequence[int] | np.ndarray] | None,
    config: SplitConfig,
    sets: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Positions of each split, ascending `[n] int64`; splits without a sample are left out.

    `labels` is `[N] int64`; with `sets` `[K, C] bool` they are positions in it. `given` are the data's own splits,
    which stay as they are; train without val gives `val / (train + val)` of itself to val, unless `config.val` is 0.
    DataError where nothing is left to train on, or where the given splits overlap.
    """
    if given is None:
        every = np.arange(len(labels))
        fractions = (config.train, config.val, config.test)
        splits = dict(zip(SPLITS, _stratified(every, labels, sets, fractions, config.seed), strict=True))
    else:
        splits = _checked(given, len(labels))
        train = splits.get("train", np.empty(0, np.int64))
        if "val" not in splits and config.val > 0 and len(train):
            splits["train"], splits["val"] = _stratified(train, labels, sets, (config.train, config.val), config.seed)
    splits = {name: splits[name] for name in SPLITS if len(splits.get(name, ()))}
    if "train" not in splits:
        raise DataError(
            "there is nothing to train on: the train split is empty",
            found=", ".join(f"{name}: {len(rows)}" for name, rows in splits.items()) or "no sample",
            valid="data with a train split, or without any split of its own",
        )
    return splits


def _checked(given: Mapping[str, Sequence[int] | np.ndarray], count: int) -> dict[str, np.ndarray]:
    splits: dict[str, np.ndarray] = {}
    owner = np.full(count, "", dtype="U5")
    for name, rows in given.items():
        if name not in SPLITS:
            raise DataError("the source returned an unknown split", found=repr(name), valid=", ".join(SPLITS))
        rows = np.unique(np.asarray(rows, dtype=np.int64))
        if len(rows) != len(given[name]) or (len(rows) and not (rows[0] >= 0 and rows[-1] < count)):
            raise DataError(
                f"the source's split {name} is not a set of positions", valid=f"each of 0 to {count - 1} at most once"
            )
        taken = rows[owner[rows] != ""]
        if len(taken):
            raise DataError("two splits share a sample", found=f"position {taken[0]} in {owner[taken[0]]} and {name}")
        owner[rows] = name
        splits[name] = rows
    return splits


def _stratified(
    rows: np.ndarray, labels: np.ndarray, sets: np.ndarray | None, fractions: Sequence[float], seed: int
) -> list[np.ndarray]:
    """`rows` in parts of sizes `fractions` (relative to their sum); the first part gets what the others leave."""
    sizes = _sizes(len(rows), fractions)
    line = _line(rows, labels, seed)
    parts: list[np.ndarray] = []
    for size in reversed(sizes[1:]):
        position = np.arange(len(line))
        chosen = (position + 1) * size // max(len(line), 1) > position * size // max(len(line), 1)
        parts.append(line[chosen])
        line = line[~chosen]
    parts.append(line)
    return [np.sort(part) for part in _keep_one_to_train(parts[::-1], labels, sets)]


def _line(rows: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """`rows` class after class, each class in an order of its own."""
    rows = rows[np.argsort(labels[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[rows], prepend=-1))
    for start, stop in zip(starts, np.append(starts, len(rows))[1:], strict=True):
        members = rows[start:stop]
        rows[start:stop] = members[permutation(len(members), seed, int(labels[members[0]]))]
    return rows


def _sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers in the ratio of `fractions` that add up to `count`: the largest remainders are rounded up."""
    exact = [Fraction(str(fraction)) for fraction in fractions]
    shares = [count * fraction / sum(exact) for fraction in exact]
    sizes = [int(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda part: sizes[part] - shares[part])
    for part in order[: count - sum(sizes)]:
        sizes[part] += 1
    return sizes


def _keep_one_to_train(parts: list[np.ndarray], labels: np.ndarray, sets: np.ndarray | None) -> list[np.ndarray]:
    """A class so small that no sample of it was left to train on gets one back."""
    trained = _classes(parts[0], labels, sets)
    for index in range(1, len(parts)):
        for label in sorted(_classes(parts[index], labels, sets) - trained):
            if label in trained:  # with the sample of another class
                continue
            rows = parts[index]
            row = int(rows[labels[rows] == label if sets is None else sets[labels[rows], label]][0])
            parts[0] = np.append(parts[0], row)
            parts[index] = parts[index][parts[index] != row]
            trained |= _classes(np.array([row]), labels, sets)
    return parts


def _classes(rows: np.ndarray, labels: np.ndarray, sets: np.ndarray | None) -> set[int]:
    """The classes that the samples at `rows` have."""
    found = np.unique(labels[rows])
    return set((found if sets is None else np.flatnonzero(sets[found].any(axis=0))).tolist())
