"""Where workers find their place: what fits the nodes of a cluster, and how many workers there are to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from raycls.config.sections.run import Run
from raycls.errors import LaunchError

if TYPE_CHECKING:
    from raycls.cluster.connection import Cluster

__all__ = [
    "DECODING_CPUS",
    "READING_CPUS",
    "Nodes",
    "check_device",
    "check_fit",
    "check_growth",
    "check_largest",
    "described",
    "executor_of",
    "group_size",
    "never_waits",
    "workers_on",
]

DECODING_CPUS, READING_CPUS = 0.9, 0.01
"""What Ray Data needs on one node to make any progress: a decoding task, and the one that reads positions."""
_ROUNDING = 1e-6
_MANY = 10_000
"""More nodes of one kind than any run needs."""

Nodes = Sequence[Mapping[str, float]]
"""The resources of each node, as Ray counts them."""


def executor_of(run: Run) -> str:
    """Who decodes for `run`: what it names. `auto`, where no `executor.choose` has settled it: Ray Data for workers of
    Ray, which takes the most room."""
    if run.data.executor != "auto":
        return run.data.executor
    return "ray" if run.scale.max_workers else "inline"


def workers_on(cpus: float, node: Mapping[str, float], device: str, taken: float = 0.0) -> int:
    """Workers of `cpus` CPUs each that Ray finds room for on `node`, where `taken` of its CPUs are used otherwise."""
    count = int((node.get("CPU", 0.0) - taken) / cpus + _ROUNDING)
    return min(count, int(node.get("GPU", 0.0))) if device == "cuda" else count


def group_size(run: Run, nodes: Nodes, device: str) -> int:
    """Workers of a group that starts now: as many as keep the nodes busy, within `scale.workers`."""
    if not run.scale.elastic:
        return run.scale.max_workers
    busy = 0
    for node in nodes:
        count = int(node.get("CPU", 0.0) / run.scale.cpus + _ROUNDING)
        busy += int(node.get("GPU", 0.0)) if device == "cuda" else count
    room = min(busy, _room(run, nodes, device, executor_of(run)), run.scale.max_workers)
    fitting = (size for size in range(room, 0, -1) if _always_decodes(run, nodes, device, executor_of(run), size))
    return max(run.scale.min_workers, next(fitting, 0))


def check_fit(run: Run, nodes: Nodes, device: str, executor: str) -> None:
    """Refuse what could never start on `nodes`, or may wait for ever. Raises LaunchError with the numbers."""
    workers, share = run.scale.min_workers, run.scale.cpus_per_worker
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if device == "cuda" and workers > gpus:
        raise LaunchError(
            "the run does not fit the cluster: it would wait for ever",
            found=f"{gpus:g} GPUs for {workers} workers with one each",
            fix="lower scale.workers, or add GPUs; a run that begins may also set scale.device=cpu "
            "(one that was trained on GPUs needs --new for that)",
        )
    places = _room(run, nodes, device, executor)
    if places >= workers and _always_decodes(run, nodes, device, executor, workers):
        return
    decoding = DECODING_CPUS + READING_CPUS if executor == "ray" else 0.0
    raise LaunchError(
        "the run does not fit the cluster: it would wait for ever",
        found=f"{described(nodes)}: room for {min(places, workers)} of {workers} workers"
        + (", and spread otherwise they leave no node that can decode" if places >= workers else ""),
        valid=f"{share:g} CPUs{' and a GPU' if device == 'cuda' else ''} on one node for each worker"
        + (f" and, however they are spread, {decoding:g} CPUs left on one node for decoding" if decoding else ""),
        fix="lower scale.workers or scale.cpus_per_worker, or add CPUs",
    )


def never_waits(run: Run, nodes: Nodes, device: str, groups: int) -> bool:
    """Whether so many groups of `scale.workers` leave room for one decoding task, however Ray spreads them."""
    return _always_decodes(run, nodes, device, executor_of(run), run.scale.max_workers, groups)


def _always_decodes(run: Run, nodes: Nodes, device: str, executor: str, workers: int, groups: int = 1) -> bool:
    """Whether one decoding task finds room even where the workers are spread so that they leave as little as they can.

    Without it no group would have data, and none would ever end.
    """
    if executor != "ray":
        return True
    needed = DECODING_CPUS + groups * READING_CPUS  # every group has a reading task for as long as it runs
    blocking = 0
    for node in nodes:
        cpus = node.get("CPU", 0.0) + _ROUNDING
        least = int((cpus - needed) / run.scale.cpus_per_worker) + 1 if cpus >= needed else 0
        if least > workers_on(run.scale.cpus_per_worker, node, device):
            return True  # its GPUs, or whole workers, are used up before its CPUs are
        blocking += least
    return groups * workers < blocking


def _room(run: Run, nodes: Nodes, device: str, executor: str) -> int:
    """How many workers find their place when the decoding has its own, on the node where it costs fewest of them."""
    share, decoding = run.scale.cpus_per_worker, DECODING_CPUS + READING_CPUS if executor == "ray" else 0.0
    lost = [
        workers_on(share, node, device) - workers_on(share, node, device, decoding)
        for node in nodes
        if node.get("CPU", 0.0) >= decoding
    ]
    return max(0, sum(workers_on(share, node, device) for node in nodes) - min(lost)) if lost else 0


def described(nodes: Nodes) -> str:
    """The nodes of a cluster, in a few words."""
    kinds = Counter((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)
    words = [f"{count} x ({cpus:g} CPUs{f', {gpus:g} GPUs' if gpus else ''})" for (cpus, gpus), count in kinds.items()]
    return f"nodes: {', '.join(words) or 'none'}"


def check_growth(run: Run, device: str, cluster: Cluster) -> None:
    """Refuse what neither fits `cluster` nor the largest that it may become. Raises LaunchError with both numbers."""
    workers, executor = run.scale.min_workers, executor_of(run)
    check_largest(cluster, lambda nodes: check_fit(run, nodes, device, executor))
    decoding = DECODING_CPUS + READING_CPUS if executor == "ray" else 0.0
    needed = {"CPU": workers * run.scale.cpus_per_worker + decoding, "GPU": float(workers if device == "cuda" else 0)}
    for name, count in needed.items():  # nodes of several kinds may share one limit
        most = max(cluster.growth.max_resources.get(name, 0.0), cluster.resources.get(name, 0.0))
        if cluster.growth.max_resources and count > most + _ROUNDING:
            raise _too_large(f"{most:g} {name}s at most, and {count:g} for {workers} workers")


def check_largest(cluster: Cluster, fits: Callable[[Nodes], None]) -> None:
    """Raise LaunchError where `fits` does so for the nodes of `cluster` and for all that there may be."""
    if not cluster.growth.groups:
        return
    try:
        fits(cluster.nodes)
    except LaunchError:
        groups = cluster.growth.groups
        largest = [node for count, node in groups for _ in range(_MANY if count < 0 else min(count, _MANY))]
        try:
            fits(largest)
        except LaunchError as error:
            raise _too_large(f"at most {error.found}", error.valid) from None


def _too_large(found: str, valid: str | None = None) -> LaunchError:
    return LaunchError(
        "the run does not fit the cluster, however far that grows",
        found=found,
        valid=valid,
        fix="lower scale.workers or scale.cpus_per_worker, or let the cluster grow further (max_workers in its file)",
    )


def check_device(run: Run, device: str, cluster: Cluster) -> None:
    """Refuse to choose between CPUs and GPUs where nodes must come and nobody says of which kind they are."""
    if run.scale.device != "auto" or device != "cpu" or not cluster.grows or cluster.growth.max_resources:
        return
    try:
        check_fit(run, cluster.nodes, device, executor_of(run))
    except LaunchError:
        raise LaunchError(
            "nodes must come, and this cluster does not say whether they have GPUs",
            where="scale.device",
            found=f"auto; {described(cluster.nodes)}",
            fix="set scale.device=cuda, or scale.device=cpu",
        ) from None
