"""How long calls take beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from raycls.progress import progress

__all__ = ["BATCHES", "interleaved", "threads_set"]

BATCHES = (1, 32)
"""Images at a time whose latency is measured."""
_WARM_UP = 3


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, seconds: float, least: int = 20, phase: str = "measuring"
) -> dict[str, list[float]]:
    """Seconds of each call, as often as `seconds` allow for all together, and `least` times each.

    They take turns, each round beginning with another one: what slows the machine for a while slows all of them, and
    none always follows the same neighbour, whose data is still in the caches.
    """
    names = list(calls)
    for name in names:
        for _ in range(_WARM_UP):
            calls[name]()
    found: dict[str, list[float]] = {name: [] for name in names}
    began, turn = time.perf_counter(), 0
    while turn < least or time.perf_counter() - began < seconds:
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            start = time.perf_counter()
            calls[name]()
            found[name].append(time.perf_counter() - start)
        turn += 1
        progress(phase, turn, None, "rounds")
    return found


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Torch computes with `count` threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
