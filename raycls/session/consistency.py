"""What the workers of a run have in common, and its starts one after another: refused or told where it differs."""

from __future__ import annotations

import hashlib
import socket
import zlib
from collections.abc import Callable, Mapping

from raycls.errors import LaunchError
from raycls.run.folder import Attempt, RunFolder
from raycls.train.precision import cpu_kind
from raycls.train.ranks import Ranks

__all__ = ["check_shared", "compare_cpus", "warn_of_changes"]


def check_shared(folder: RunFolder, nonce: str) -> None:
    """Refuse a worker that does not see the run folder of the driver: what it wrote would be lost.

    `nonce` is the sha256 of the run's `env.json` as the driver sees it.
    """
    seen = folder.store.find_bytes(RunFolder.ENV)
    if seen is not None and hashlib.sha256(seen).hexdigest() == nonce:
        return
    raise LaunchError(
        "a worker does not see the run folder: run.storage is not shared between the machines",
        where=f"{folder.store.describe()} on {socket.gethostname()}",
        found="nothing there" if seen is None else "another run",
        fix="set run.storage to a folder or URI that every node reaches",
    )


def warn_of_changes(
    attempt: Attempt, here: Mapping[str, str], *, reduction: str, workers: int, warn: Callable[[str], None]
) -> None:
    """Say what differs from the start before this one and may change bits."""
    for name, value in here.items():
        before = attempt.rest.get(name, value)
        if before != value:
            warn(f"this run used {name} {before} until now and resumes with {value}: its bits may differ")
    if reduction == "fast" and max(1, attempt.workers) != workers:
        warn(f"the fast reduction adds differently on {workers} workers than on {attempt.workers} before")


def compare_cpus(ranks: Ranks, warn: Callable[[str], None]) -> None:
    """Say on rank 0 that the CPUs of the workers are of different kinds. A collective call."""
    if not ranks.same(zlib.crc32(cpu_kind().encode())) and ranks.rank == 0:
        warn("the workers' CPUs are of different kinds: other workers may give other bits")
