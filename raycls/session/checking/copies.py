"""Which images of a data set are the same picture, and where that matters: in two splits, or under two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from raycls.session.checking.near import Pair, near_duplicates

__all__ = ["EXACT", "Copies", "Same", "copies"]

EXACT = "exact"
_AS_IT_IS = (EXACT, "resized", "re-encoded")
"""A mirrored b is a d: only images that are not turned must have one label."""


@dataclass(frozen=True)
class Same:
    """Images of one picture, by their positions, and what they are to each other."""

    images: tuple[int, ...]
    kinds: tuple[str, ...]
    distance: float = 0.0
    """Of two near duplicates, see `near`."""


@dataclass(frozen=True)
class Copies:
    """What is the same in a data set."""

    exact: tuple[Same, ...]
    """Files of the same bytes, two or more of each."""
    near: tuple[Same, ...]
    """Pairs; of files of the same bytes the first one stands for all."""
    pictures: tuple[Same, ...]
    """All images of each picture that there is more than once."""
    leaks: tuple[Same, ...]
    """The pictures that are in more than one split."""
    conflicts: tuple[Same, ...]
    """Images of one picture, none of them mirrored or turned, with more than one label."""


def copies(
    digests: np.ndarray, small: np.ndarray, sizes: np.ndarray, splits: np.ndarray, labels: np.ndarray | None
) -> Copies:
    """Compare all images that can be decoded: those whose `sizes` `[N, 2]` are not 0.

    `digests` is `[N, 16] uint8`, `small` `[N, 1152] uint8`, `splits` and `labels` are integers `[N]`.
    """
    usable = np.flatnonzero(sizes[:, 0] > 0)
    _, first, which = np.unique(digests[usable], axis=0, return_index=True, return_inverse=True)
    members = [usable[rows] for rows in _grouped(which.ravel(), len(first))]
    members.sort(key=lambda rows: int(rows[0]))
    exact = tuple(Same(tuple(rows.tolist()), (EXACT,)) for rows in members if len(rows) > 1)
    different = np.array([rows[0] for rows in members], np.int64)
    pairs = near_duplicates(small[different], sizes[different])
    near = tuple(_same(pair, different) for pair in pairs)
    pictures = _joined([*exact, *near])
    upright = _joined([same for same in (*exact, *near) if set(same.kinds) <= set(_AS_IT_IS)])
    return Copies(
        exact,
        near,
        pictures,
        tuple(same for same in pictures if len(set(splits[[*same.images]].tolist())) > 1),
        () if labels is None else tuple(same for same in upright if len(set(labels[[*same.images]].tolist())) > 1),
    )


def _grouped(which: np.ndarray, count: int) -> list[np.ndarray]:
    """The positions of each of `count` values, ascending."""
    order = np.argsort(which, kind="stable")
    return np.split(order, np.cumsum(np.bincount(which, minlength=count))[:-1]) if count else []


def _same(pair: Pair, different: np.ndarray) -> Same:
    return Same((int(different[pair.first]), int(different[pair.second])), (pair.kind,), pair.distance)


def _joined(found: Sequence[Same]) -> tuple[Same, ...]:
    """What has an image in common is one picture."""
    parents: dict[int, int] = {}

    def root(image: int) -> int:
        parents.setdefault(image, image)
        while parents[image] != image:
            parents[image] = image = parents[parents[image]]
        return image

    for same in found:
        for image in same.images[1:]:
            one, other = sorted((root(same.images[0]), root(image)))
            parents[other] = one
    images: defaultdict[int, list[int]] = defaultdict(list)
    for image in sorted(parents):
        images[root(image)].append(image)
    kinds: defaultdict[int, list[str]] = defaultdict(list)
    for same in found:
        kinds[root(same.images[0])].extend(same.kinds)
    return tuple(Same(tuple(each), _unique(kinds[first])) for first, each in images.items())


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
