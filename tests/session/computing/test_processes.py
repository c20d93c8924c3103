"""Parts that several processes compute: each is computed, whenever the pool of processes breaks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, cast

import numpy as np
import pytest

from raycls.session.computing import pool as pools
from raycls.session.computing import processes
from raycls.session.predictions.compute import Part, Work


class _Pool:
    """Computes a part when it is submitted, and is broken when the `refused`-th of all is: a process was killed."""

    submitted = 0
    refused = 0

    def __init__(self, *_: object) -> None:
        self._broken = False

    def submit(self, _: Callable[[int], bytes], number: int) -> Future[bytes]:
        type(self).submitted += 1
        if self.submitted == self.refused:
            self._broken = True
        if self._broken:
            raise BrokenProcessPool("a process was ended")
        future: Future[bytes] = Future()
        future.set_result(_part(number).to_bytes())
        return future

    def shutdown(self, **_: object) -> None:
        pass


def _part(number: int) -> Part:
    return Part(number, np.zeros((1, 1), np.int64), np.ones((1, 1)), np.empty((1, 0)), (None,))


@pytest.mark.parametrize("refused", range(1, 8))
def test_a_part_that_a_broken_pool_refuses_is_computed_again(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = type("Pool", (_Pool,), {"refused": refused})
    monkeypatch.setattr(pools, "ProcessPoolExecutor", pool)
    parts = processes.in_processes(cast(Work, Any), range(7), 2)
    assert sorted((number, Part.from_bytes(data).number) for number, data in parts) == [(n, n) for n in range(7)]
