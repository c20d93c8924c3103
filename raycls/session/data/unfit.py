"""Whether an operation of the config suits no image, rather than one image the operation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from raycls.config.sections.run import Run
from raycls.config.write import override
from raycls.data.making.bad import BadImageError, or_skip
from raycls.data.making.sample import Arrays, made
from raycls.data.samples import UnfitError
from raycls.data.source import Dataset, Split
from raycls.errors import ConfigError, DataError
from raycls.session.setup import make_arrays
from raycls.train.plan import Plan

__all__ = ["NEARLY_ALL", "first_of", "first_sample", "first_samples", "tried"]

NEARLY_ALL = 0.9
"""An operation that fails on this part of the images is at fault, not the images."""
_OTHERS = 3
_TRIES = 1000
"""Bad images in a row after which nobody looks for a good one any more."""


def tried(arrays: Arrays, split: Split, index: int, seed: int, *, train: bool, epoch: int = 0) -> dict[str, np.ndarray]:
    """The sample at `index`, as the task makes it in `epoch`.

    An UnfitError of it says how to leave the sample out only where the same operation suits another sample.
    """
    try:
        return made(arrays, split, index, (seed, epoch, index), train=train)
    except UnfitError as error:
        others = np.unique(np.linspace(0, len(split) - 1, _OTHERS + 1).round().astype(int))
        others = others[others != index].tolist()
        if others and all(_fails(arrays, split, other, seed, error.entry, train=train) for other in others):
            leave_out = f"; {split.without(index)}"
            error.fix = (error.fix or "").removesuffix(leave_out)
            images = "another image fails" if len(others) == 1 else f"{len(others)} other images fail"
            error.found = f"{(error.found or '').removesuffix('.')}; {images} there too"
        raise


def first_samples(run: Run, dataset: Dataset, plan: Plan) -> list[dict[str, np.ndarray]]:
    """The first sample at each size of `augment.progressive`. ConfigError where two of them have the same shapes."""
    samples = [first_sample(run, dataset, plan, epoch) for epoch, _ in plan.sizes or ((0, 0),)]
    for (_, before), (_, after), one, other in zip(plan.sizes, plan.sizes[1:], samples, samples[1:], strict=False):
        if before != after and all(one[name].shape == other[name].shape for name in one):
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in other.items() if array.ndim > 1)
            raise ConfigError(
                "augment.progressive changes nothing: the samples have the same shape at two of its sizes",
                where="augment.progressive",
                found=f"{shapes} at {before} and at {after}",
                fix="leave size out of the operation of augment.train that decides it, or set "
                + override("augment.progressive", {}),
            )
    return samples


def first_sample(run: Run, dataset: Dataset, plan: Plan, epoch: int = 0) -> dict[str, np.ndarray]:
    """The first sample that is trained, as the task makes it in `epoch`: of the shapes of all of it."""
    order = plan.order
    ids = (int(id) for step in range(order.steps_per_epoch) for id in order.places(order.batch(step)))
    arrays, split = make_arrays(run, dataset.classes, plan), dataset.splits["train"]
    return first_of(run, arrays, split, ids, train=True, epoch=epoch)


def first_of(
    run: Run, arrays: Arrays, split: Split, rows: Iterable[int], *, train: bool, epoch: int = 0
) -> dict[str, np.ndarray]:
    """The first of the samples at `rows`; with `data.on_bad_image: skip` the first that is no bad image."""
    error: BadImageError | None = None
    for tries, row in enumerate(rows):
        try:
            return tried(arrays, split, row, run.run.seed, train=train, epoch=epoch)
        except BadImageError as found:
            if run.data.on_bad_image == "error":
                raise or_skip(found) from found.__cause__
            if tries == _TRIES:
                raise
            error = error or found
    raise error or DataError("there is no sample", found=f"the split {split.name} is empty")


def _fails(arrays: Arrays, split: Split, index: int, seed: int, entry: str, *, train: bool) -> bool:
    try:
        made(arrays, split, index, (seed, 0, index), train=train)
    except DataError as error:
        return isinstance(error, UnfitError) and error.entry == entry
    return False
