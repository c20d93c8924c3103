"""Functions for a group of Ray workers: small enough to show what the group itself does."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from raycls.errors import DataError, TrainError
from raycls.launch.session import Job, World
from raycls.train.worker import ABORTED


def error_of_rank_1(job: Job, world: World) -> dict[str, Any]:
    """Both ranks tell the driver what they heard; then rank 1 has an error, and rank 0 hears of it as the loop does."""
    shared = world.share(f"rank {world.rank}")
    world.post({"kind": "told", "told": f"rank {world.rank} of {world.size} heard {shared}"})
    dist.barrier()
    if world.rank == 1:
        raise DataError("a file is bad", where="here.png", found="nothing")
    raise TrainError(ABORTED)
