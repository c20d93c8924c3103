"""Runs of a session in which memory runs out, or a loss is not a number."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from harness.jobs import train_rank
from raycls.data import order
from raycls.session.job import Job
from raycls.train import loop
from raycls.train.recovery.memory import Dividing

__all__ = ["TEXT", "Small", "poisoned", "train_rank_lacking", "train_rank_poisoned"]

TEXT = "CUDA out of memory. Tried to allocate 2.00 GiB."


@dataclass(frozen=True)
class Small:
    """From `step` (from 0) on a micro-batch of more than `rows` images does not fit; on `ranks` alone, and in the
    backward pass where `backward`. `passes`: how many micro-batches of these steps fit before."""

    step: int
    rows: int
    ranks: Collection[int] = (0, 1, 2)
    backward: bool = False
    passes: int = 0

    @contextmanager
    def memory(self, rank: int = 0) -> Iterator[None]:
        """Inside, this process has so little."""
        now, size, left = -1, 0, self.passes
        ordered, micro_batch = loop.ordered, Dividing.micro_batch

        def key(seed: int, step: int, micro: int) -> int:
            nonlocal now
            now = step
            return order.key(seed, step, micro)

        def sized(self: Dividing, index: int, rows: int) -> Any:
            nonlocal size
            size = rows
            return micro_batch(self, index, rows)

        def summed(sums: Any, task: Any) -> list[torch.Tensor]:
            nonlocal left
            found = ordered(sums, task)
            if rank not in self.ranks or now < self.step or size <= self.rows:
                return found
            if left:
                left -= 1
                return found
            if not self.backward:  # by now the forward pass has changed buffers and drawn numbers
                raise torch.OutOfMemoryError(TEXT)
            return [_Full.apply(value) if value.requires_grad else value for value in found]

        with (
            mock.patch.object(loop, "key", key),
            mock.patch.object(loop, "ordered", summed),
            mock.patch.object(Dividing, "micro_batch", sized),
        ):
            yield


class _Full(torch.autograd.Function):
    """The identity, whose gradient does not fit."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError(TEXT)


def train_rank_lacking(rank: int, world: int, job: Job, small: Small, die_at: int = -1) -> dict[str, Any]:
    """One rank of a training with a `small` memory; with `die_at` as in `harness.jobs.train_rank`."""
    with small.memory(rank):
        return train_rank(rank, world, job, die_at)


@contextmanager
def poisoned(steps: Collection[int]) -> Iterator[None]:
    """Inside, the loss of these steps (from 0) is not a number."""
    now = -1
    ordered = loop.ordered

    def key(seed: int, step: int, micro: int) -> int:
        nonlocal now
        now = step
        return order.key(seed, step, micro)

    def summed(sums: Any, task: Any) -> list[torch.Tensor]:
        found = ordered(sums, task)
        return [value * torch.nan for value in found] if now in steps else found

    with mock.patch.object(loop, "key", key), mock.patch.object(loop, "ordered", summed):
        yield


def train_rank_poisoned(rank: int, world: int, job: Job, steps: Collection[int], die_at: int = -1) -> dict[str, Any]:
    """One rank of a training that is `poisoned`; with `die_at` as in `harness.jobs.train_rank`."""
    with poisoned(steps):
        return train_rank(rank, world, job, die_at)
