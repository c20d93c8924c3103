"""In how many micro-batches those of a run's start are computed, since memory ran out: arithmetic on steps."""

from __future__ import annotations

__all__ = ["Divided", "divided_from", "parts_at"]

Divided = tuple[tuple[int, int], ...]
"""(step from 0, parts), both ascending: from this step on each micro-batch is computed in so many micro-batches."""


def parts_at(divided: Divided, step: int) -> int:
    """In how many micro-batches each one is computed in `step`; 1 before memory ran out."""
    return max((parts for first, parts in divided if first <= step), default=1)


def divided_from(divided: Divided, step: int, parts: int) -> Divided:
    """`divided` with one division more; of those after it stay the ones that go further."""
    before = [item for item in divided if item[0] < step]
    after = [item for item in divided if item[0] > step and item[1] > parts]
    return (*before, (step, parts), *after)
