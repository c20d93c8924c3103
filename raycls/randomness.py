"""The one place that seeds, saves and restores generators: torch's, numpy's global one and Python's.

Randomness is keyed, never carried: whoever draws is given a seed that follows from its position, `data.order.key` of
(seed, epoch, sample) before an augmentation and of (seed, step, micro-batch) before a forward pass.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["States", "kept", "own_generator", "put_back", "seed_all", "seeded", "seeded_torch", "states"]

States = tuple[torch.Tensor, dict[str, Any], tuple[Any, ...]]
"""Of torch's, numpy's and Python's generators."""


def seed_all(seed: int, device: torch.device | None = None) -> None:
    """Start every generator at `seed`, that of a GPU too where `device` is one.

    numpy's and Python's as well: layers that are left out at random often ask these.
    """
    # torch.manual_seed would also leave a note, with a traceback, for GPUs that nobody uses: a millisecond.
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


def states() -> States:
    """Where the generators of the CPU are."""
    return torch.default_generator.get_state(), np.random.get_state(legacy=False), random.getstate()


def put_back(states: States) -> None:
    """The generators of the CPU go on from `states`."""
    torch.default_generator.set_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


@contextmanager
def kept() -> Iterator[None]:
    """The generators of the CPU are put back afterwards."""
    before = states()
    try:
        yield
    finally:
        put_back(before)


_own = threading.local()


def own_generator(seed: int) -> torch.Generator:
    """A generator of this thread alone, at `seed`: it draws what torch's does. The next call seeds the same one."""
    generator = getattr(_own, "generator", None)
    if generator is None:
        generator = _own.generator = torch.Generator()
    return generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """The generators of the CPU start at `seed`, and are put back afterwards; yields that of torch.

    Torch runs with one thread meanwhile: the bits of its sums depend on how many there are.
    """
    threads = torch.get_num_threads()
    with kept():
        try:
            if threads != 1:
                torch.set_num_threads(1)
            seed_all(seed)
            yield torch.default_generator
        finally:
            if threads != 1:
                torch.set_num_threads(threads)


@contextmanager
def seeded_torch(seed: int) -> Iterator[torch.Generator]:
    """As `seeded`, for what is known to draw from torch alone and to add nothing up: a tenth of the time."""
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(seed)
        yield generator
    finally:
        generator.set_state(state)
