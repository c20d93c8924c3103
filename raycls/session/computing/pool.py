"""Tasks in a pool of processes of which any may be killed: what it had under way is known, and lost by nobody."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

__all__ = ["answers", "opened"]

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Work = TypeVar("Work")


@contextmanager
def opened(processes: int, begin: Callable[[Work], None], work: Work) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, in each of which `begin(work)` was called.

    An error in the block, Ctrl-C too, ends the processes at once. One that arrives while they are started finds a pool
    that nobody would ever tell to end: the interpreter would wait for its processes at exit.
    """
    # A fresh server process forks the others: forking one that has threads can deadlock. It imports for all of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(work).__module__])
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, begin, (work,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
