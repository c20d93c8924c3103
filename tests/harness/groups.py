"""Functions for a group of Ray workers: small enough to show what the group itself does."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from raycls.errors import DataError, TrainError
from raycls.launch.session import Job, World
from raycls.train.worker import ABORTED


def result_of_rank_0(job: Job, world: World) -> dict[str, Any]:
    """Every rank tells the driver who it is; rank 0's result is the one that counts."""
    shared = world.share("of rank 0" if world.rank == 0 else None)
    world.post({"kind": "told", "rank": world.rank})
    dist.barrier()
    return {"rank": world.rank, "size": world.size, "shared": shared}


def error_of_rank_1(job: Job, world: World) -> dict[str, Any]:
    """Rank 1 has an error of ours, and rank 0 hears of it as the loop does."""
    world.post({"kind": "told", "rank": world.rank})
    dist.barrier()
    if world.rank == 1:
        raise DataError("a file is bad", where="here.png", found="nothing")
    raise TrainError(ABORTED)


def exception_of_rank_1(job: Job, world: World) -> dict[str, Any]:
    """Rank 1 raises what a user's code may raise, while rank 0 waits for it."""
    if world.rank == 1:
        raise KeyError("no such layer")
    dist.barrier()
    return {}
