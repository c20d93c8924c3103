"""Splits that keep groups whole, such as the images of one patient: stratified as well as the groups allow.

The groups are dealt one after the other, the largest first and equal ones in a seeded order, each to the part that
comes nearest to its share of the classes and of the samples by it: a greedy method like that of scikit-learn's
`StratifiedGroupKFold`, for parts of any size. Sums are of Python's floats in one order, so that every machine deals
alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from raycls.data.order import permutation
from raycls.data.samples import Keys
from raycls.errors import DataError
from raycls.quantities import first_names

__all__ = ["SharedGroupError", "dealt", "groups_of", "keep_trained", "numbers_of", "refuse_shared", "shared"]


class SharedGroupError(DataError):
    """A group is in two splits that the data brought."""


def groups_of(values: Keys, keys: Keys, column: str) -> np.ndarray:
    """The group of each sample as an integer, `[N] int64`. DataError where one has none."""
    texts = [*values]
    lost = [row for row, text in enumerate(texts) if not text]
    if lost:
        raise DataError(
            f"{len(lost):,} images have no {column}",
            where="data.group",
            found=first_names([keys[row] for row in lost[:5]], len(lost)),
            valid="a group for each image",
            fix="fill the column; an image without others has a name of its own there",
        )
    return numbers_of(texts)


def numbers_of(values: Sequence[Hashable]) -> np.ndarray:
    """Equal values as equal integers, numbered as they first appear, `[N] int64`."""
    number = {value: at for at, value in enumerate(dict.fromkeys(values))}
    return np.array([number[value] for value in values], np.int64)


def shared(splits: Mapping[str, Sequence[int] | np.ndarray], groups: np.ndarray) -> list[int]:
    """The groups, `groups` `[N] int64`, that are in more than one of `splits`, which are positions."""
    times = np.bincount(np.concatenate([np.zeros(0, np.int64), *(np.unique(groups[rows]) for rows in splits.values())]))
    return np.flatnonzero(times > 1).tolist()


def dealt(
    rows: np.ndarray,
    labels: np.ndarray,
    sets: np.ndarray | None,
    groups: np.ndarray,
    shares: Sequence[float],
    seed: int,
) -> list[np.ndarray]:
    """`rows` in parts of about these shares, ascending, with every group in one of them.

    `labels` and `groups` are `[N] int64`; with `sets` `[K, C] bool` the labels are positions in it. DataError where
    there are fewer groups than parts.
    """
    names, group = np.unique(groups[rows], return_inverse=True)
    wanted = sum(share > 0 for share in shares)
    if len(names) < wanted:
        raise DataError(
            "there are fewer groups than splits",
            where="data.group",
            found=f"{len(names)} groups",
            valid=f"at least {wanted}",
            fix="set data.split or data.fold so that fewer splits are cut, or name another column; data.group=off "
            "splits without groups",
        )
    sizes = np.bincount(group, minlength=len(names))
    order = permutation(len(names), seed, len(rows))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part = _assigned(order.tolist(), _counts(labels[rows], sets, group), sizes.tolist(), shares)
    return [np.sort(rows[part[group] == number]) for number in range(len(shares))]


def keep_trained(
    parts: Sequence[np.ndarray], labels: np.ndarray, sets: np.ndarray | None, groups: np.ndarray
) -> list[np.ndarray]:
    """`parts`, of which the first is trained on, with the smallest group of each class that is in it nowhere there."""
    number, rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts]), np.concatenate(parts)
    _, group = np.unique(groups[rows], return_inverse=True)
    counts, sizes = _counts(labels[rows], sets, group), np.bincount(group)
    part = np.zeros(len(sizes), np.int64)
    part[group] = number
    trained = {label for each in np.flatnonzero(part == 0).tolist() for label in counts[each]}
    for each in np.argsort(sizes, kind="stable").tolist():
        if part[each] != 0 and not trained.issuperset(counts[each]):
            part[each] = 0
            trained.update(counts[each])
    return [np.sort(rows[part[group] == at]) for at in range(len(parts))]


def _counts(labels: np.ndarray, sets: np.ndarray | None, group: np.ndarray) -> list[dict[int, int]]:
    """How many samples of each class each group has."""
    found: list[dict[int, int]] = [{} for _ in range(int(group.max()) + 1)]
    width = int(labels.max()) + 1
    pairs, times = np.unique(group * width + labels, return_counts=True)
    for pair, count in zip(pairs.tolist(), times.tolist(), strict=True):
        number, label = divmod(pair, width)
        for each in [label] if sets is None else np.flatnonzero(sets[label]).tolist():
            found[number][each] = found[number].get(each, 0) + count
    return found


def _assigned(
    order: Sequence[int], counts: Sequence[dict[int, int]], sizes: Sequence[int], shares: Sequence[float]
) -> np.ndarray:
    """The part of each group, `[G] int64`.

    The cost of a part is the sum over classes c, and over all samples as one more, of ((n_c - share N_c) / N_c)^2; a
    group goes where it adds least.
    """
    totals: dict[int, int] = {-1: sum(sizes)}
    for each in counts:
        for label, count in each.items():
            totals[label] = totals.get(label, 0) + count
    over = [{label: -share / sum(shares) * total for label, total in totals.items()} for share in shares]
    open_parts = [at for at, share in enumerate(shares) if share > 0]
    part = np.zeros(len(counts), np.int64)
    for number in order:
        mine = [(-1, sizes[number]), *counts[number].items()]
        added = {
            at: sum(count * (2 * over[at][label] + count) / (totals[label] * totals[label]) for label, count in mine)
            for at in open_parts
        }
        best = min(open_parts, key=added.__getitem__)
        part[number] = best
        for label, count in mine:
            over[best][label] += count
    return part


def refuse_shared(splits: dict[str, np.ndarray], groups: np.ndarray, values: Keys, column: str) -> None:
    """DataError where a group is in two of the splits that the data brought."""
    owner: dict[int, str] = {}
    for name, rows in splits.items():
        for row, group in zip(rows.tolist(), groups[rows].tolist(), strict=True):
            if owner.setdefault(group, name) != name:
                raise SharedGroupError(
                    "a group is in two splits that the data brought",
                    where="data.group",
                    found=f"{column} {values[row]}: {owner[group]} and {name}",
                    valid="no group on two sides",
                    fix="correct the splits of the data, have them cut anew by data.source.args.splits=none , or keep "
                    "them as they are by data.group=off",
                )
