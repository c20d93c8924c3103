"""Functions for a group of Ray workers: small enough to show what the group itself does."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from raycls.errors import DataError
from raycls.session.job import Job, World
from raycls.session.messages import Event


def error_of_rank_1(job: Job, world: World) -> dict[str, Any]:
    """Both ranks tell the driver what they heard; then rank 1 has an error, and rank 0 waits for it for ever."""
    shared = world.share(f"rank {world.rank}")
    world.post(Event(f"rank {world.rank} of {world.size} heard {shared}"))
    dist.barrier()
    if world.rank == 1:
        raise DataError("a file is bad", where="here.png", found="nothing")
    dist.barrier()
    return {}
