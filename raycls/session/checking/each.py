"""Something is done to every image of a data set, on all cores; an image that ends its process is known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from raycls.data.source import Split
from raycls.data.stream import end_with_parent
from raycls.errors import DataError
from raycls.progress import progress
from raycls.quantities import cores
from raycls.session.computing.pool import answers, opened

__all__ = ["Apart", "Task", "Work", "each"]

_AT_ONCE = 32
"""Images of one task."""
_FEW = 64
"""So many images are looked at before processes have started."""

Answer = TypeVar("Answer")
Answered = TypeVar("Answered", covariant=True)


@dataclass(frozen=True)
class Task:
    """Some images of a split, one after another."""

    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def cut(self, size: int) -> Iterator[Task]:
        """The same images in tasks of `size`."""
        return (Task(self.split, at, min(at + size, self.stop)) for at in range(self.start, self.stop, size))


class Work(Protocol[Answered]):
    """What a process needs to look at any image; it travels there once."""

    def __call__(self, task: Task) -> Answered:
        """What is found of the images of `task`. It raises for no image."""
        ...

    def failed(self, task: Task, error: DataError) -> Answered:
        """What is said of the one image of `task`, which ended the process."""
        ...


def each(work: Work[Answer], splits: Mapping[str, Split], phase: str) -> Iterator[tuple[Task, Answer]]:
    """What `work` answers about all images of `splits`, in any order, with the progress of `phase`."""
    done, total = 0, sum(map(len, splits.values()))
    progress(phase, 0, total, "images")
    for task, answer in _results(work, _tasks(splits, _AT_ONCE), total):
        done += len(task)
        yield task, answer
        progress(phase, done, total, "images")


def _tasks(splits: Mapping[str, Split], size: int) -> Iterator[Task]:
    for name, split in splits.items():
        yield from Task(name, 0, len(split)).cut(size)


def _results(work: Work[Answer], tasks: Iterator[Task], total: int) -> Iterator[tuple[Task, Answer]]:
    if total <= _FEW:
        yield from ((task, work(task)) for task in tasks)
        return
    while True:
        lost: list[Task] = []
        yield from _in_processes(work, tasks, cores(), 2 * cores(), lost)
        if not lost:
            return
        for task in lost:  # one of them ended its process: which image it was shows where each is looked at alone
            yield from _one_by_one(work, task)


class Apart(Generic[Answer]):
    """A context manager that does tasks in one process of its own, which an image may end: then another one starts."""

    def __init__(self, work: Work[Answer]) -> None:
        self._work, self._stack = work, ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def each(self, task: Task) -> Iterator[tuple[Task, Answer]]:
        """What `work` answers about the images of `task`, in their order."""
        for some in task.cut(_AT_ONCE):
            try:
                yield some, self._do(some)
                continue
            except BrokenProcessPool:
                singles = some.cut(1)
            for single in singles:
                try:
                    yield single, self._do(single)
                except BrokenProcessPool:
                    yield single, self._work.failed(single, _ended())

    def _do(self, task: Task) -> Answer:
        if self._pool is None:
            self._pool = self._stack.enter_context(opened(1, _begin, self._work))
        try:
            return self._pool.submit(_do, task).result()
        except BrokenProcessPool:
            self._stack.close()
            self._pool = None
            raise


def _ended() -> DataError:
    return DataError("decoding an image ended the process", found="no memory, or a fault of the decoder")


def _one_by_one(work: Work[Answer], task: Task) -> Iterator[tuple[Task, Answer]]:
    singles = task.cut(1)
    while True:
        lost: list[Task] = []
        yield from _in_processes(work, singles, 1, 1, lost)
        if not lost:
            return
        (single,) = lost
        yield single, work.failed(single, _ended())


def _in_processes(
    work: Work[Answer], tasks: Iterator[Task], processes: int, ahead: int, lost: list[Task]
) -> Iterator[tuple[Task, Answer]]:
    """Results as they come, with `ahead` tasks under way; those that were when a process ended by itself are `lost`."""
    with opened(processes, _begin, work) as pool:
        yield from answers(pool, _do, tasks, ahead, lost)


_mine: list[Callable[[Task], Any]] = []
"""In a process of the pool, what it works with."""


def _begin(work: Callable[[Task], Any]) -> None:
    end_with_parent(0)
    _mine[:] = [work]


def _do(task: Task) -> Any:
    return _mine[0](task)
