"""Run a function on several gloo ranks, in fresh processes and without Ray."""

from __future__ import annotations

import os
import queue
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.forking import forking

_SECONDS = 180


def run_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """`function(rank, world, *args)` on `world` ranks of one gloo group; their results in the order of ranks.

    `function` must be importable by name. A rank that raises fails the call with its traceback.
    """
    context = forking()
    results: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ranks = [
            context.Process(target=_rank, args=(function, rank, world, store, results, args), daemon=False)
            for rank in range(world)
        ]
        for process in ranks:
            process.start()
        try:
            found: dict[int, Any] = {}
            while len(found) < world:
                rank, failure, value = results.get(timeout=_SECONDS)
                if failure:
                    raise AssertionError(f"rank {rank} failed:\n{failure}")
                found[rank] = value
            return [found[rank] for rank in range(world)]
        except queue.Empty:
            raise AssertionError(f"{world} ranks gave no result within {_SECONDS} s") from None
        finally:
            for process in ranks:
                process.join(timeout=5)
                if process.is_alive():
                    process.kill()
                    process.join()


def _rank(function: Callable[..., Any], rank: int, world: int, store: str, results: Any, args: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        if world > 1:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{store}",
                rank=rank,
                world_size=world,
                timeout=timedelta(seconds=_SECONDS),
            )
        results.put((rank, "", function(rank, world, *args)))
        if world > 1:
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        results.put((rank, traceback.format_exc(), None))
