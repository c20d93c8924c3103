"""Which sample belongs to which split, where the data does not say: stratified by class, seeded, exact.

Samples are lined up class by class, each class in a seeded order, and a split takes every k-th of the line.
So the sizes of the splits are exact over the whole data, and each class differs from its exact share by
less than one sample per split, however small the classes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from raycls.config.sections.data import SplitConfig
from raycls.data.order import permutation
from raycls.data.samples import Keys
from raycls.data.splits.folds import folded
from raycls.data.splits.grouped import dealt, groups_of, keep_trained, numbers_of, refuse_shared, shared
from raycls.errors import DataError
from raycls.quantities import plural

__all__ = ["Groups", "divide", "group_column"]

SPLITS = ("train", "val", "test")
PATIENT = "patient"
"""The column whose groups are kept whole unless a config says otherwise."""


@dataclass(frozen=True)
class Groups:
    """Which samples stay together."""

    column: str
    values: Keys
    numbers: np.ndarray
    """The group of each sample, `[N] int64`."""
    asked: bool = True
    """Whether a user named the column: then splits of the data that divide a group are refused."""

    @staticmethod
    def of(about: Mapping[str, Keys], keys: Keys, column: str | None) -> Groups | None:
        """The groups of `data.group` by `group_column`. Those of patients that nobody asked for are groups if one has
        several samples; a sample without a patient is a group of its own."""
        by = group_column(column, about)
        if by is None:
            return None
        if column is not None:
            return Groups(column, about[column], groups_of(about[column], keys, column))
        numbers = numbers_of(
            [("patient", text) if text else ("sample", keys[at]) for at, text in enumerate(about[PATIENT])]
        )
        return (
            Groups(PATIENT, about[PATIENT], numbers, asked=False)
            if numbers.max(initial=-1) + 1 < len(numbers)
            else None
        )

    def notes(self, given: Mapping[str, Sequence[int] | np.ndarray] | None) -> tuple[str, ...]:
        """What the header of a run says of groups that nobody named; `given` are the splits that the data brings."""
        if self.asked:
            return ()
        several = shared(given or {}, self.numbers)
        kept = f"data: all of a {self.column} goes to one split (data.group=off splits series by series)"
        told = f"data: {plural(len(several), self.column)} in more than one of the splits that the data brings"
        return (kept, told) if several else (kept,)


def group_column(column: str | None, about: Iterable[str]) -> str | None:
    """The column that `data.group` keeps whole: `column`, none where that is `off`; where it is not set, that of
    patients, if it is among `about`, the columns that are known of the samples."""
    if column is not None:
        return None if column == "off" else column
    return PATIENT if PATIENT in about else None


def divide(
    labels: np.ndarray,
    given: Mapping[str, Sequence[int] | np.ndarray] | None,
    config: SplitConfig,
    sets: np.ndarray | None = None,
    groups: Groups | None = None,
    fold: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Positions of each split, ascending `[n] int64`; splits without a sample are left out.

    `labels` is `[N] int64`; with `sets` `[K, C] bool` they are positions in it. `given` are the data's own splits,
    which stay as they are; train without val gives `val / (train + val)` of itself to val, unless `config.val` is 0.
    With a `fold`, its index and how many there are, val is that fold. No group is in two splits. DataError where
    nothing is left to train on, or where the given splits overlap.
    """

    def parts(rows: np.ndarray, fractions: Sequence[float]) -> list[np.ndarray]:
        if groups is not None and len(rows):
            found = dealt(rows, labels, sets, groups.numbers, fractions, config.seed)
            return keep_trained(found, labels, sets, groups.numbers)
        return _stratified(rows, labels, sets, fractions, config.seed)

    def folds(rows: np.ndarray, count: int) -> list[np.ndarray]:
        if groups is not None:
            return dealt(rows, labels, sets, groups.numbers, [1.0] * count, config.seed)
        line = _line(rows.copy(), labels, config.seed)
        return [np.sort(line[start::count]) for start in range(count)]

    splits: dict[str, np.ndarray] = {}
    if given is None:
        every = np.arange(len(labels))
        if fold is None:
            splits.update(zip(SPLITS, parts(every, (config.train, config.val, config.test)), strict=True))
        else:
            splits["train"], splits["test"] = parts(every, (1 - config.test, config.test))
    else:
        splits = _checked(given, len(labels))
        if groups is not None and groups.asked:
            refuse_shared(splits, groups.numbers, groups.values, groups.column)
        train = splits.get("train", np.empty(0, np.int64))
        if fold is None and "val" not in splits and config.val > 0 and len(train):
            splits["train"], splits["val"] = parts(train, (config.train, config.val))
    if fold is not None:
        splits = folded(splits, fold, folds)
        pair = [splits["train"], splits["val"]]
        if groups is None:
            pair = [np.sort(part) for part in _keep_one_to_train(pair, labels, sets)]
        else:
            pair = keep_trained(pair, labels, sets, groups.numbers)
        splits["train"], splits["val"] = pair
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
