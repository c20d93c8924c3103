"""Generators start where they are told to, and are put back."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from raycls.randomness import kept, seed_all, seeded, seeded_torch

_DRAWS = [lambda: torch.rand(1).item(), np.random.random, random.random]


@pytest.mark.parametrize("draw", _DRAWS, ids=["torch", "numpy", "python"])
def test_a_seed_decides_what_is_drawn(draw: Callable[[], float]) -> None:
    def drawn(seed: int) -> float:
        draw()
        seed_all(seed)
        return draw()

    seeds = [0, 1, 2**32 - 1, 2**62 + 5]
    values = [drawn(seed) for seed in seeds]
    assert values == [drawn(seed) for seed in seeds]
    assert len(set(values)) == len(seeds)


def test_torch_is_seeded_as_torch_says() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    seed_all(7)
    assert torch.equal(torch.rand(3), expected)
    with seeded_torch(7):
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("scope", [kept, lambda: seeded(3)], ids=["kept", "seeded"])
@pytest.mark.parametrize("draw", _DRAWS, ids=["torch", "numpy", "python"])
def test_generators_are_put_back_whatever_happens(scope: Callable[[], object], draw: Callable[[], float]) -> None:
    seed_all(1)
    expected = [draw(), draw()]
    seed_all(1)
    found = [draw()]
    with pytest.raises(ZeroDivisionError), scope():  # type: ignore[attr-defined]
        draw()
        raise ZeroDivisionError
    assert [*found, draw()] == expected


def test_seeded_runs_with_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with seeded(0):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
