"""Something is done to every image of a data set, on all cores; an image that ends its process is known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from raycls.data.source import Split
from raycls.data.stream import end_with_parent
from raycls.errors import DataError
from raycls.progress import progress
from raycls.quantities import cores
from raycls.session.computing.pool import answers, opened

__all__ = ["Task", "Work", "each"]

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
        for start in range(0, len(split), size):
            yield Task(name, start, min(start + size, len(split)))


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


def _one_by_one(work: Work[Answer], task: Task) -> Iterator[tuple[Task, Answer]]:
    singles = (Task(task.split, index, index + 1) for index in range(task.start, task.stop))
    while True:
        lost: list[Task] = []
        yield from _in_processes(work, singles, 1, 1, lost)
        if not lost:
            return
        (single,) = lost
        error = DataError("decoding an image ended the process", found="no memory, or a fault of the decoder")
        yield single, work.failed(single, error)


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
