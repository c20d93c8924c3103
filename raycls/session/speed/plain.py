"""The same files and operations through a plain `torch.utils.data.DataLoader`: what a trainer of one's own would do."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from raycls.data.making.bad import Bad, BadImageError, or_skip
from raycls.data.order import Order
from raycls.data.slices import Maker, Slice
from raycls.data.source import Split
from raycls.data.stream import Stream, end_with_parent
from raycls.session.speed.samples import position
from raycls.session.speed.steps import positions

__all__ = ["plain_stream"]

_Index = tuple[int, tuple[int, int, int]]
"""The row of a sample in its split, and its key."""


@dataclass(frozen=True)
class _Samples:
    """A map-style data set of samples."""

    maker: Maker
    split: Split

    def __getitem__(self, index: _Index) -> dict[str, np.ndarray] | None:
        """None for a bad image that the run skips."""
        row, key = index
        try:
            made = self.maker.arrays(self.split, row, key, train=True)
        except BadImageError as error:
            if self.maker.skips:
                return None
            raise or_skip(error) from error.__cause__
        return {name: np.array(array) for name, array in made.items()}  # torch warns of what may not be written to


@dataclass(frozen=True)
class _Batches:
    """A batch sampler: the samples of each step."""

    order: Order

    def __iter__(self) -> Iterator[list[_Index]]:
        for step in count():
            keys = self.order.slice_keys(step, 0, 1)
            rows = self.order.places(np.array([sample for _, _, sample in keys], np.int64))
            yield list(zip(rows.tolist(), keys, strict=True))


def _collated(samples: list[dict[str, np.ndarray] | None]) -> tuple[list[int], Any]:
    """The places of bad images, and what torch makes of the others."""
    from torch.utils.data import default_collate

    good = [sample for sample in samples if sample is not None]
    return [place for place, sample in enumerate(samples) if sample is None], default_collate(good) if good else {}


def plain_stream(maker: Maker, split: Split, order: Order, *, processes: int, pinned: bool) -> Stream:
    """A stream from step 0 on, of a loader with `processes` and else its defaults; `pinned` for a GPU.

    Without processes it makes its samples in this one.
    """
    import torch.utils.data

    # As in `raycls.data.stream`: a process that has threads is not forked.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raycls.data.stream", "raycls.data.images.operations"])
    loader: Any = torch.utils.data.DataLoader(
        _Samples(maker, split),  # type: ignore[arg-type]
        batch_sampler=_Batches(order),  # type: ignore[arg-type]
        collate_fn=_collated,
        num_workers=processes,
        pin_memory=pinned,
        multiprocessing_context=context if processes else None,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),
    )
    items = iter(loader)

    def slices() -> Iterator[Slice]:
        for step, (places, arrays) in enumerate(items):
            ids = [sample for _, _, sample in order.slice_keys(step, 0, 1)]
            bad = tuple(Bad(place, ids[place], "", "", 0) for place in places)
            good = np.delete(np.array(ids, np.int64), places)
            yield Slice(position(order, step), good, {name: array.numpy() for name, array in arrays.items()}, bad=bad)

    return Stream(slices(), positions(order, 0), items._shutdown_workers if processes else lambda: None)
