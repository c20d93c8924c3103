"""Parts computed by several processes of this machine, each with a network of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from raycls.data.stream import end_with_parent
from raycls.errors import LaunchError
from raycls.session.predictions.compute import Part, Predictor, Work

__all__ = ["in_processes"]

_predictors: list[Predictor] = []
"""That of this process."""


def in_processes(work: Work, numbers: Sequence[int], processes: int) -> Iterator[Part]:
    """The parts `numbers` in the order in which they are done. LaunchError where a process is killed."""
    # A fresh server process forks the others: forking one that has threads can deadlock. It imports torch once for all.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raycls.session.predictions.compute"])
    pool = ProcessPoolExecutor(min(processes, len(numbers)), context, _begin, (work,))
    todo = iter(numbers)
    running: set[Future[bytes]] = set()
    try:
        while True:
            while len(running) < 2 * processes and (number := next(todo, None)) is not None:
                running.add(pool.submit(_compute, number))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield Part.from_bytes(future.result())
    except BrokenProcessPool as error:
        raise LaunchError(
            "a predicting process was killed",
            found=str(error),
            fix="rerun the command to resume; if it recurs, memory may be short: data.processes=1 needs least",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Work) -> None:
    end_with_parent(0)
    predictor = Predictor(work)
    predictor.__enter__()
    _predictors[:] = [predictor]


def _compute(number: int) -> bytes:
    return _predictors[0].part(number).to_bytes()
