"""Counts as people read them, and how many cores there are to count on."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["aligned", "bound_by", "bytes_text", "cores", "first_names", "plural", "rate_text"]

_WAITS = 0.1
_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bytes_text(count: float) -> str:
    """Bytes in the largest unit that they fill, by powers of 1,024: `512 bytes`, `1.5 KiB`, `44.7 MiB`."""
    for size, name in _BYTES:
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count:.0f} bytes"


def first_names(names: Sequence[str], count: int | None = None) -> str:
    """Up to five of `names`, as an error or a line shows them, and how many more there are; of `count`, where only the
    first of them are given."""
    count = len(names) if count is None else count
    return ", ".join(names[:5]) + (f" and {count - 5:,} more" if count > 5 else "")


def rate_text(value: float) -> str:
    """Images per second, as a table shows them: `1,203`, `4.2`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def aligned(lines: Sequence[Sequence[str]], numbers: range) -> list[str]:
    """Lines of cells, each column as wide as its longest cell; the cells of the columns `numbers` to the right."""
    sides = [
        (">" if place in numbers else "<", max(map(len, cells))) for place, cells in enumerate(zip(*lines, strict=True))
    ]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(line, sides, strict=True)).rstrip()
        for line in lines
    ]


def plural(count: float, noun: str) -> str:
    """The count and its noun, in the plural where it is one: `1 class`, `1,203 images`, `0.07 epochs`."""
    many = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith(("tch", "ss")) else f"{noun}s"
    return f"{count:{'g' if isinstance(count, float) else ','}} {noun if count == 1 else many}"


def bound_by(data_wait: float) -> str:
    """What makes a training no faster: `data` where more than a tenth of its time (to the per cent) is a wait for it,
    else `the step`."""
    return "data" if round(data_wait, 2) > _WAITS else "the step"
