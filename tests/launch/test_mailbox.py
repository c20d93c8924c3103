"""The mailbox's two lines, in an event loop and without Ray."""

from __future__ import annotations

import asyncio
import time

from raycls.launch.mailbox import Mailbox
from raycls.session.messages import Event, Message
from raycls.train.reasons import Reason


def test_messages_come_once_and_in_order() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        events = [Event("one"), Event("two"), Event("three")]
        for event in events:
            await mailbox.post(event)
        assert await mailbox.take(5.0) == events
        assert await mailbox.take(0.0) == []

    asyncio.run(exchange())


def test_a_waiting_taker_is_woken_by_a_message() -> None:
    async def exchange() -> tuple[list[Message], float]:
        mailbox = Mailbox()
        began = time.monotonic()
        waiting = asyncio.create_task(mailbox.take(30.0))
        await asyncio.sleep(0.01)
        await mailbox.post(Event("one"))
        return await waiting, time.monotonic() - began

    messages, seconds = asyncio.run(exchange())
    assert messages == [Event("one")]
    assert seconds < 5


def test_a_taker_gives_up_and_loses_nothing() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        assert await mailbox.take(0.01) == []
        await mailbox.post(Event("one"))
        assert await mailbox.take(0.0) == [Event("one")]

    asyncio.run(exchange())


def test_the_request_to_stop_reaches_all_who_wait_and_who_ask_later() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        assert await mailbox.stopped(Reason.NONE, 0.01) is Reason.NONE
        waiting = [asyncio.create_task(mailbox.stopped(Reason.NONE, 30.0)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await mailbox.stop(Reason.SIGTERM)
        assert await asyncio.gather(*waiting) == [Reason.SIGTERM] * 2
        assert await mailbox.stopped(Reason.NONE, 0.0) is Reason.SIGTERM
        assert await mailbox.stopped(Reason.SIGTERM, 0.01) is Reason.SIGTERM

    asyncio.run(exchange())
