"""How far long work is: said where the work is done, heard by whoever shows it.

The folder of a million files, a download and a wait for nodes are deep below the command that has the screen. They
say where they are with `progress`, which costs nothing where nobody listens; a screen, or the reporter of a worker,
is `listening`. What is said here decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["TRAINING", "Progress", "Steps", "counted", "listening", "progress"]

T = TypeVar("T")

TRAINING = "training"
"""The phase in which steps are made; every other one is something beside them."""

_COUNT_SECONDS = 0.2
"""How often `counted` says how far it is."""


@dataclass(frozen=True)
class Progress:
    """What is going on, and how far it is."""

    phase: str
    """What is done, as a participle: `evaluating`, `waiting for nodes`."""
    done: int | None = None
    total: int | None = None
    """None where nobody knows."""
    unit: str = ""
    """What is counted, in the plural: `images`, `files`, `bytes`."""


@dataclass(frozen=True)
class Steps:
    """How far a training is, in this start."""

    step: int
    """Steps that are done, over all starts."""
    images: int
    """Images of those of this start."""
    waited: float = 0.0
    """Seconds that this start has waited for data, but for its first batch."""
    time: float = 0.0
    """When the last step was done."""


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []
_told: list[Progress] = []
"""What was said last to the innermost listener, if anything."""


def progress(phase: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
    """Tell the innermost listener; see `Progress`."""
    _tell(Progress(phase, done, total, unit))


def _tell(now: Progress) -> None:
    _told[:] = [now]
    if _listeners:
        _listeners[-1](now)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear what this process says, in whichever thread, for the length of the block."""
    before, _told[:] = list(_told), []
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
        _told[:] = before


def counted(items: Iterable[T], phase: str, total: int | None = None, unit: str = "") -> Iterator[T]:
    """`items`, one by one; how many there were is said a few times a second, and at the end what was said before."""
    before = list(_told)
    progress(phase, 0, total, unit)
    told = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - told >= _COUNT_SECONDS:
            told = now
            progress(phase, done, total, unit)
    for one in before:
        _tell(one)
