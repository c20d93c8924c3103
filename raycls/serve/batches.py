"""Dynamic batching: what arrived while one batch was computed is the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batched", "Batches"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batched(Generic[Result]):
    """The result of one item."""

    value: Result
    first_of: int = 0
    """The size of its batch where the item was the first of it, else 0: so that each batch is counted once."""


class Batches(Generic[Item, Result]):
    """Hands items to `compute` in batches of at most `most`.

    `compute` returns one result per item, in their order. A batch is closed when the one before it is done, not after a
    fixed wait: a lone request never waits, and under load batches grow by themselves. (`@serve.batch` closes the next
    batch while the one before is still computed, and does not run outside a replica of Ray Serve.) Where `compute`
    raises, each item of the batch is computed alone: one that cannot be computed fails no other.
    """

    def __init__(self, compute: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], *, most: int) -> None:
        self._compute, self._most = compute, most
        self._waiting: list[tuple[Item, asyncio.Future[Batched[Result]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def result(self, item: Item) -> Batched[Result]:
        """The result of `item`; raises what `compute` raised for it alone."""
        future: asyncio.Future[Batched[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            wanted = [(item, future) for item, future in batch if not future.done()]  # who went away is left out
            if wanted:
                await self._batch(wanted)

    async def _batch(self, batch: Sequence[tuple[Item, asyncio.Future[Batched[Result]]]]) -> None:
        try:
            values = await self._compute([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for one in batch:
                await self._batch([one])
            return
        for place, ((_, future), value) in enumerate(zip(batch, values, strict=True)):
            _settle(future, Batched(value, 0 if place else len(batch)))


def _settle(future: asyncio.Future[Batched[Result]], outcome: Batched[Result] | Exception) -> None:
    if future.done():  # cancelled meanwhile
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
