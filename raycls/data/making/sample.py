"""One sample as the task makes it, and samples as the arrays of a batch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from raycls.data.samples import UnfitError
from raycls.errors import DataError, RayclsError

if TYPE_CHECKING:  # the processes that only route slices need not import torch
    from raycls.data.source import Split

__all__ = ["Arrays", "collate", "made", "unexpected"]


class Arrays(Protocol):
    """Makes one sample, as `raycls.tasks.base.Task.arrays` does; it travels to other processes."""

    def __call__(
        self, split: Split, index: int, key: tuple[int, int, int], *, train: bool
    ) -> dict[str, np.ndarray]: ...


def made(arrays: Arrays, split: Split, row: int, key: tuple[int, int, int], *, train: bool) -> dict[str, np.ndarray]:
    """The sample at `row` of a split, drawn by `key` = (seed, epoch, id). A DataError of it names the file."""
    try:
        return _checked(arrays(split, row, key, train=train))
    except RayclsError as error:
        if isinstance(error, DataError):  # an augmentation knows the image, not where it came from
            error.where = error.where or split.locate(row)
        if isinstance(error, UnfitError):
            error.fix = f"{error.fix}; {split.without(row)}"
        raise
    except (Exception, SystemExit) as error:  # of a plug-in; raised as it is, Ray would try the image for ever
        raise unexpected(error, where=split.locate(row)) from error


def _checked(sample: Any) -> dict[str, np.ndarray]:
    if not isinstance(sample, dict) or not sample:
        raise DataError("the task made no arrays", found=repr(sample)[:80], valid="a dict of numpy arrays")
    return sample


def collate(samples: Sequence[Mapping[str, np.ndarray]], locate: Callable[[int], str]) -> dict[str, np.ndarray]:
    """Arrays of samples -> arrays `[B, ...]`, in native byte order. DataError names two samples that differ.

    `locate` names a sample, given its position in `samples`.
    """
    if not samples:
        return {}
    kinds = [{name: (np.asarray(array).dtype, np.shape(array)) for name, array in sample.items()} for sample in samples]
    for name, (dtype, _) in kinds[0].items():
        if dtype.kind not in "biufc":
            what = f"the task made an array {name!r} of a kind that does not travel"
            raise DataError(what, where=locate(0), found=str(dtype), valid="numbers or booleans")
    for row, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise _differ(locate, row, kinds[0], kind)
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


_Kinds = Mapping[str, tuple[np.dtype, tuple[int, ...]]]


def _differ(locate: Callable[[int], str], row: int, first: _Kinds, other: _Kinds) -> DataError:
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    shown = [
        ", ".join(
            f"{name} {kinds[name][0]} {list(kinds[name][1])}" if name in kinds else f"no {name}" for name in names
        )
        for kinds in (first, other)
    ]
    return DataError(
        "the samples of a batch differ in shape or kind after augmentation",
        where=locate(row),
        found=f"{locate(0)}: {shown[0]}; {locate(row)}: {shown[1]}",
        valid="one shape for all",
        fix="end the list with a crop, or a resize to [height, width]: a resize to one number keeps the shape",
    )


def unexpected(error: BaseException, *, where: str | None = None) -> DataError:
    """An exception of a data source, a task or an augmentation as an error that can travel to the driver."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", raised in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return DataError(
        "a sample could not be made: the data source, the task or an augmentation raised an exception",
        where=where,
        found=f"{type(error).__name__}: {error}{place}",
        fix="correct the plug-in; scale.workers=0 runs it in one process, under a debugger",
    )
