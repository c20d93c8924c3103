"""Groups, such as patients, that are in two splits which the data brought: a run refuses those of `data.group`."""

from __future__ import annotations

from dataclasses import dataclass

from raycls.config.sections.data import DataConfig
from raycls.data.samples import text_of
from raycls.data.source import Dataset, cut, open_pool
from raycls.data.splits.grouped import SharedGroupError
from raycls.data.splits.split import group_column

__all__ = ["Shared", "opened", "shared_groups", "side_of"]


@dataclass(frozen=True)
class Shared:
    """A group on two sides."""

    group: str
    images: tuple[int, ...]
    """All of it, by their positions among all images."""


def opened(config: DataConfig) -> Dataset:
    """The data set of a run; where a group is in two splits that the data brought, as it were without `data.group`."""
    pool = open_pool(config)
    try:
        return cut(pool, config)
    except SharedGroupError:
        return cut(pool, config.model_copy(update={"group": "off"}))


def side_of(dataset: Dataset, split: str) -> str:
    """The split of the data that the images of `split` are of: what was cut from train is a part of it."""
    return split if split in dataset.own_splits else "train"


def shared_groups(dataset: Dataset, group: str | None) -> tuple[Shared, ...] | None:
    """The groups that are in two splits, in the order of their first images; None where there are no groups.

    `group` is `data.group`: without it patients are groups, where they are known.
    """
    about = next(iter(dataset.splits.values())).about
    column = group_column(group, about)
    if column is None:
        return None
    members: dict[str, list[int]] = {}
    sides: dict[str, set[str]] = {}
    place = 0
    for name, split in dataset.splits.items():
        for value in split.about[column]:
            if each := text_of(value):  # an image without a patient is a group of its own
                members.setdefault(each, []).append(place)
                sides.setdefault(each, set()).add(side_of(dataset, name))
            place += 1
    if not dataset.own_splits:  # they were cut by the groups
        return ()
    return tuple(Shared(each, tuple(images)) for each, images in members.items() if len(sides[each]) > 1)
