"""A step that runs out of memory is done again, with each micro-batch in twice as many.

What a step computes depends on its samples, the weights and the micro-batches, and on nothing that a failed try leaves:
gradients and sums begin anew, buffers go back to those of the step's start, and the generators are seeded for each
micro-batch. So the step, and each one after it, is to the bit that of a run with so many micro-batches. Every sample
keeps its worker: what was decoded for the step is still what is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from raycls.data.order import Order
from raycls.data.slices import micro_rows
from raycls.errors import TrainError
from raycls.quantities import plural
from raycls.train.ranks import Ranks
from raycls.train.recovery.divided import Divided, parts_at
from raycls.train.reduction import Divisible, Part, Totals

__all__ = ["Dividing", "Memory", "lacks_memory"]

_LACKS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says in a RuntimeError where no memory is left."""


class Memory(Protocol):
    """What else happens where memory runs out. All ranks call each of them, `divide` in the same step."""

    splits: bool
    """Whether a step is done again: `train.on_out_of_memory: split`."""

    def divide(self, step: int, order: Order) -> None:
        """From `step` (from 0) on there are the micro-batches of `order`; raises where these cannot be trained."""

    def leaves(self, step: int, order: Order) -> None:
        """Bad images leave so much of the divided micro-batches of `step`; raises where that cannot be trained."""

    def divided(self, step: int, order: Order) -> None:
        """`step` is the first one with these micro-batches."""

    def fix(self) -> str:
        """What a user can do against a lack of memory."""
        ...


class Dividing:
    """A reduction over another one, which meets a lack of memory in a forward or backward pass.

    `divided` are the divisions of earlier starts. Where memory does not split, a TrainError says what to do; nor are
    ranks asked after each step then whether one of them lacks memory.
    """

    def __init__(self, inner: Divisible, divided: Divided, ranks: Ranks, memory: Memory) -> None:
        self.model, self.factor, self.order = inner.model, inner.factor, inner.order
        self._inner, self._divided, self._ranks, self._memory = inner, divided, ranks, memory
        self._step, self._rows = 0, 0
        self._holes: tuple[int, ...] = ()
        self._lack = ""
        self._cached = False

    def divide(self, order: Order) -> None:
        self.order = order
        self._inner.divide(order)

    def begin(self, step: int, holes: tuple[int, ...] = ()) -> None:
        self._step, self._holes = step, holes
        parts = max(self.order.together, parts_at(self._divided, step))
        if parts > self.order.together:
            self.divide(self.order.divided(parts))
        if any(first == step for first, _ in self._divided):
            self._memory.divided(step, self.order)
        if holes and self.order.together > 1:
            self._memory.leaves(step, self.order.without(holes))
        self._inner.begin(step, holes)

    def passes(self, parts: Sequence[Part]) -> Iterator[Part]:
        while True:
            rank, world = self._ranks.rank, self._ranks.world
            order = self.order.without(self._holes)
            for part in parts if order.together == 1 else micro_rows(order, self._step, rank, world):
                yield part
                if self._lack:
                    break
            if not self._memory.splits or not self._ranks.any(bool(self._lack)):
                return
            self._again()

    @contextmanager
    def micro_batch(self, index: int, rows: int) -> Iterator[None]:
        if self._cached:  # by now the loop has let go of what the failed try computed
            self._cached = False
            torch.cuda.empty_cache()
        self._rows = rows
        with self._met(), self._inner.micro_batch(index, rows):
            yield

    def add(self, index: int, sums: Sequence[Tensor] | None) -> None:
        if not self._lack:
            with self._met():
                self._inner.add(index, sums)

    def finish(self) -> Totals:
        return self._inner.finish()

    def keep_buffers(self, keep: bool) -> None:
        self._inner.keep_buffers(keep)

    @contextmanager
    def _met(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            self._lack = (str(error) or type(error).__name__).splitlines()[0]
            if not self._memory.splits:
                raise self._told() from error

    def _again(self) -> None:
        """Begin the step anew with smaller micro-batches, on every rank."""
        order = self.order
        whole = order.rows(self._step) <= order.micro_batches
        self._ranks.check(self._told() if whole and self._lack else None)
        finer = order.divided(2 * order.together)
        self._inner.keep_buffers(False)
        if self._holes:
            self._memory.leaves(self._step, finer.without(self._holes))
        self._memory.divide(self._step, finer)
        self.divide(finer)
        self._lack, self._cached = "", self._ranks.device.type == "cuda"
        self._memory.divided(self._step, finer)
        self._inner.begin(self._step, self._holes)

    def _told(self) -> TrainError:
        images, batches = plural(self._rows, "image"), plural(self.order.micro_batches, "micro-batch")
        return TrainError(
            f"step {self._step + 1} needs more memory than there is",
            where="data.batch_size, train.micro_batches",
            found=f"a micro-batch of {images} ({batches}); {self._lack}",
            fix=self._memory.fix(),
        )


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception of torch says that no memory is left, on a GPU or beside it."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in _LACKS)
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)
