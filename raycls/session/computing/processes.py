"""Parts computed by several processes of this machine, each with what it needs opened once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raycls.data.stream import end_with_parent
from raycls.errors import LaunchError
from raycls.session.computing.parted import Compute, Parted
from raycls.session.computing.pool import answers, opened

__all__ = ["in_processes"]

_computing: list[Compute] = []
"""What computes in this process."""


def in_processes(work: Parted, numbers: Sequence[int], processes: int) -> Iterator[tuple[int, bytes]]:
    """The parts `numbers`, each with its number, in the order in which they are done.

    Where a process is killed, the parts that were under way are computed again, one at a time. LaunchError names the
    one that ends its process again.
    """
    todo = iter(numbers)
    while True:
        lost: list[int] = []
        yield from _in_pool(work, todo, min(processes, len(numbers)), lost)
        if not lost:
            return
        for number in lost:
            again: list[int] = []
            yield from _in_pool(work, iter([number]), 1, again)
            if again:
                raise LaunchError(
                    f"a process was ended twice while {work.doing} the same images",
                    where=work.place(number),
                    found="no memory, or an image whose reader or decoder ends the process",
                    fix=work.remedy,
                )


def _in_pool(work: Parted, numbers: Iterator[int], processes: int, lost: list[int]) -> Iterator[tuple[int, bytes]]:
    """Parts as they are done; those that were under way when a process ended by itself are `lost`."""
    with opened(processes, _begin, work) as pool:
        yield from answers(pool, _compute, numbers, 2 * processes, lost)


def _begin(work: Parted) -> None:
    end_with_parent(0)
    _computing[:] = [work.computing().__enter__()]


def _compute(number: int) -> bytes:
    return _computing[0](number)
