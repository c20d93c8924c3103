"""The mailbox's two lines, in an event loop and without Ray."""

from __future__ import annotations

import asyncio
import time

from raycls.launch.mailbox import Mailbox


def test_records_come_once_and_in_order() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        for step in range(3):
            await mailbox.post({"step": step})
        assert await mailbox.take(5.0) == [{"step": 0}, {"step": 1}, {"step": 2}]
        assert await mailbox.take(0.0) == []

    asyncio.run(exchange())


def test_a_waiting_taker_is_woken_by_a_record() -> None:
    async def exchange() -> tuple[list[dict[str, int]], float]:
        mailbox = Mailbox()
        began = time.monotonic()
        waiting = asyncio.create_task(mailbox.take(30.0))
        await asyncio.sleep(0.01)
        await mailbox.post({"step": 1})
        return await waiting, time.monotonic() - began

    records, seconds = asyncio.run(exchange())
    assert records == [{"step": 1}]
    assert seconds < 5


def test_a_taker_gives_up_and_loses_nothing() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        assert await mailbox.take(0.01) == []
        await mailbox.post({"step": 1})
        assert await mailbox.take(0.0) == [{"step": 1}]

    asyncio.run(exchange())


def test_the_request_to_stop_reaches_all_who_wait_and_who_ask_later() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        assert await mailbox.stopped("", 0.01) == ""
        waiting = [asyncio.create_task(mailbox.stopped("", 30.0)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await mailbox.stop("sigterm")
        assert await asyncio.gather(*waiting) == ["sigterm", "sigterm"]
        assert await mailbox.stopped("", 0.0) == "sigterm"
        assert await mailbox.stopped("sigterm", 0.01) == "sigterm"

    asyncio.run(exchange())
