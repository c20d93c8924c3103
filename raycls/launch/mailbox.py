"""Two lines between the driver and rank 0: records to the driver, a request to stop to the workers.

An actor without CPUs that lives as long as the driver. Neither side polls: both wait in calls that the actor
answers when there is something to say. Training does not depend on it: a record that is lost is in the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

__all__ = ["Mailbox", "make_mailbox"]


class Mailbox:
    """The actor's class; its methods run in one event loop."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._stop = ""
        self._verdict: str | None = None
        self._news = asyncio.Condition()

    async def post(self, record: dict[str, Any]) -> None:
        """A record for the driver."""
        async with self._news:
            self._records.append(record)
            self._news.notify_all()

    async def take(self, timeout: float) -> list[dict[str, Any]]:
        """The records since the last call; waits up to `timeout` seconds for the first one."""
        async with self._news:
            await self._wait(lambda: bool(self._records), timeout)
            records, self._records = self._records, []
            return records

    async def judge(self, record: dict[str, Any]) -> str:
        """Hand an evaluation to the driver and wait for its verdict: empty to go on, else the reason to stop."""
        async with self._news:
            self._verdict = None
            self._records.append({**record, "kind": "judge"})
            self._news.notify_all()
            await self._news.wait_for(lambda: self._verdict is not None)
            return self._verdict or ""

    async def verdict(self, reason: str) -> None:
        """The driver's answer to `judge`."""
        async with self._news:
            self._verdict = reason
            self._news.notify_all()

    async def stop(self, reason: str) -> None:
        """Ask the workers to finish their step, checkpoint and end: `search`, `sigint` or `sigterm`.

        `resize` and `preempted` ask for the same, so that another group goes on. `abort` and `stalled` ask every
        worker to leave at once, whatever it waits for.
        """
        async with self._news:
            self._stop = reason
            self._news.notify_all()

    async def stopped(self, known: str, timeout: float) -> str:
        """The reason to stop once it is another one than `known`, or `known` after `timeout` seconds."""
        async with self._news:
            await self._wait(lambda: self._stop != known, timeout)
            return self._stop

    async def _wait(self, there: Callable[[], bool], timeout: float) -> None:
        if there():  # asyncio gives up on a wait of no seconds without looking
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait_for(there), timeout)


def make_mailbox() -> Any:
    """A handle of a new mailbox, on the driver's node. Callers never wait for one another."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 1000, "max_restarts": 0, "scheduling_strategy": here}
    return ray.remote(Mailbox).options(**options).remote()
