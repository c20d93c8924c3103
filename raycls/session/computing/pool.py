"""Tasks in a pool of processes of which any may be killed: what it had under way is known, and lost by nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

__all__ = ["answers"]

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def answers(
    pool: ProcessPoolExecutor, function: Callable[[Task], Answer], tasks: Iterator[Task], ahead: int, lost: list[Task]
) -> Iterator[tuple[Task, Answer]]:
    """Tasks with what `function` answers, as they are done, `ahead` of them under way.

    Where a process of `pool` ends by itself, no more come: those that were under way are `lost`, in the order in which
    they were given.
    """
    running: dict[Future[Answer], Task] = {}
    refused: list[Task] = []
    try:
        while True:
            for task in islice(tasks, ahead - len(running)):
                refused[:] = [task]  # a pool that broke a moment ago takes none
                running[pool.submit(function, task)] = task
                refused.clear()
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                answer = future.result()
                yield running.pop(future), answer
    except BrokenProcessPool:
        lost += [*running.values(), *refused]
