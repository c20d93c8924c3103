"""Two lines between the driver and rank 0: messages to the driver, a request to stop to the workers.

An actor without CPUs that lives as long as the driver. Neither side polls: both wait in calls that the actor
answers when there is something to say. Training does not depend on it: the history has what matters of
a message that is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycls.session.messages import Judging, Message
from raycls.train.reasons import Reason

__all__ = ["Mailbox", "make_mailbox"]


class Mailbox:
    """The actor's class; its methods run in one event loop."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._stop = Reason.NONE
        self._verdict: Reason | None = None
        self._news = asyncio.Condition()

    async def post(self, message: Message) -> None:
        """Something for the driver."""
        async with self._news:
            self._messages.append(message)
            self._news.notify_all()

    async def take(self, timeout: float) -> list[Message]:
        """The messages since the last call; waits up to `timeout` seconds for the first one."""
        async with self._news:
            await self._wait(lambda: bool(self._messages), timeout)
            messages, self._messages = self._messages, []
            return messages

    async def judge(self, facts: dict[str, Any]) -> Reason:
        """Hand the facts of an evaluation to the driver and wait for its verdict, see `World.decide`."""
        async with self._news:
            self._verdict = None
            self._messages.append(Judging(facts))
            self._news.notify_all()
            await self._news.wait_for(lambda: self._verdict is not None)
            return self._verdict or Reason.NONE

    async def verdict(self, reason: Reason) -> None:
        """The driver's answer to `judge`."""
        async with self._news:
            self._verdict = reason
            self._news.notify_all()

    async def stop(self, reason: Reason) -> None:
        """Ask the workers to finish their step, checkpoint and end; or to leave at once, where it `aborts`."""
        async with self._news:
            self._stop = reason
            self._news.notify_all()

    async def stopped(self, known: Reason, timeout: float) -> Reason:
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
