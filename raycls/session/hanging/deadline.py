"""Deadlines for what may never return: a file system that is gone, a cluster that is frozen."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from raycls.errors import EXIT_FAILED

__all__ = ["must_end", "within"]

T = TypeVar("T")


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a thread, which is left alone where it takes longer: then TimeoutError."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=call, name="raycls-within", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def must_end(seconds: float, say: Callable[[], None]) -> Iterator[None]:
    """End the process with `EXIT_FAILED` after `say()` where the block takes longer than `seconds`.

    For calls that hold the main thread and take no deadline.
    """

    def end() -> None:
        try:
            say()
        finally:
            os._exit(EXIT_FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
