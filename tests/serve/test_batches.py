"""Batches form by themselves, keep their order, and isolate what cannot be computed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from raycls.serve.batches import Batches


class _Doubling:
    """Doubles numbers, waits until it is let go, and fails where a batch has one that is negative."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.seen.append(list(items))
        await self.go.wait()
        if any(item < 0 for item in items):
            raise ValueError(f"negative: {list(items)}")
        return [2 * item for item in items]


def test_what_arrives_while_one_batch_is_computed_is_the_next_one() -> None:
    async def run() -> None:
        doubling = _Doubling()
        batches = Batches[int, int](doubling, most=4)
        first = asyncio.create_task(batches.result(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert doubling.seen == [[1]]  # alone, without a wait
        rest = [asyncio.create_task(batches.result(number)) for number in range(2, 9)]
        await asyncio.sleep(0)
        doubling.go.set()
        found = [await task for task in (first, *rest)]
        assert doubling.seen == [[1], [2, 3, 4, 5], [6, 7, 8]]
        assert [one.value for one in found] == [2, 4, 6, 8, 10, 12, 14, 16]
        assert [one.first_of for one in found] == [1, 4, 0, 0, 0, 3, 0, 0]

    asyncio.run(run())


def test_one_that_fails_fails_no_other() -> None:
    async def run() -> None:
        doubling = _Doubling()
        doubling.go.set()
        batches = Batches[int, int](doubling, most=8)
        tasks = [asyncio.create_task(batches.result(number)) for number in (1, -2, 3)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one.value for one in (found[0], found[2])] == [2, 6]  # type: ignore[union-attr]
        assert isinstance(found[1], ValueError) and str(found[1]) == "negative: [-2]"
        assert (await batches.result(5)).value == 10  # it lives on

    asyncio.run(run())


def test_who_went_away_is_left_out() -> None:
    async def run() -> None:
        doubling = _Doubling()
        batches = Batches[int, int](doubling, most=4)
        tasks = [asyncio.create_task(batches.result(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        doubling.go.set()
        assert [(await tasks[0]).value, (await tasks[2]).value] == [2, 6]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    asyncio.run(run())
