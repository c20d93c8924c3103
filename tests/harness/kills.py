"""Start the ranks of a group and end them by SIGKILL, as a machine that goes away does."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.forking import forking
from harness.ranks import _rank

_SECONDS = 120


def run_killed(
    world: int, function: Callable[..., Any], *args: Any, when: Callable[[], bool] = lambda: False
) -> list[int]:
    """Run `function(rank, world, *args)` on `world` ranks until `when()` holds, then SIGKILL all of them.

    A rank may also kill itself: the others are then left to notice it on their own. Returns the exit codes in
    the order of ranks: -9 for a killed one, 1 for one that raised, 0 for one that came to its end.
    """
    context = forking()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ranks = [context.Process(target=_end, args=(function, rank, world, store, args)) for rank in range(world)]
        for process in ranks:
            process.start()
        deadline = time.monotonic() + _SECONDS
        try:
            while any(process.is_alive() for process in ranks) and not when():
                assert time.monotonic() < deadline, f"{world} ranks neither ended nor noticed that one was killed"
                time.sleep(0.002)
        finally:
            for process in ranks:
                process.kill()
            for process in ranks:
                process.join()
        return [process.exitcode or 0 for process in ranks]


class _Outcome:
    """Stands where the results of the ranks go."""

    failure = ""

    def put(self, found: tuple[int, str, Any]) -> None:
        self.failure = self.failure or found[1]


def _end(function: Callable[..., Any], rank: int, world: int, store: str, args: tuple[Any, ...]) -> None:
    outcome = _Outcome()
    _rank(function, rank, world, store, outcome, args)
    if outcome.failure:
        print(f"rank {rank} of {world}: {outcome.failure}", file=sys.stderr, flush=True)
        raise SystemExit(1)
