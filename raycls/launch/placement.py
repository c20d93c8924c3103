"""Where workers find their place: what fits, how many there are to be, and the wait for nodes that may come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from raycls.config.schema import Run
from raycls.errors import LaunchError

__all__ = [
    "DECODING_CPUS",
    "READING_CPUS",
    "Demand",
    "Nodes",
    "check_fit",
    "described",
    "executor_of",
    "group_size",
    "never_waits",
    "wait_for_room",
    "workers_on",
]

DECODING_CPUS, READING_CPUS = 0.9, 0.01
"""What Ray Data needs on one node to make any progress: a decoding task, and the one that reads positions."""
_ROUNDING = 1e-6
_LOOK_SECONDS = 1.0
_RENEW_SECONDS, _FORGET_SECONDS = 20.0, 90.0

Nodes = Sequence[Mapping[str, float]]
"""The resources of each node, as Ray counts them."""


def executor_of(run: Run) -> str:
    """The executor that `data.executor: auto` means."""
    if run.data.executor != "auto":
        return run.data.executor
    return "ray" if run.scale.most else "inline"


def workers_on(run: Run, node: Mapping[str, float], device: str, taken: float = 0.0) -> int:
    """Workers that Ray finds a place for on `node`, where `taken` of its CPUs are used otherwise."""
    count = int((node.get("CPU", 0.0) - taken) / run.scale.cpus_per_worker + _ROUNDING)
    return min(count, int(node.get("GPU", 0.0))) if device == "cuda" else count


def group_size(run: Run, nodes: Nodes, device: str) -> int:
    """Workers of a group that starts now: as many as keep the nodes busy, within `scale.workers`."""
    if not run.scale.elastic:
        return run.scale.most
    each = max(float(run.scale.threads), run.scale.cpus_per_worker)
    busy = 0
    for node in nodes:
        count = int(node.get("CPU", 0.0) / each + _ROUNDING)
        busy += int(node.get("GPU", 0.0)) if device == "cuda" else count
    room = min(busy, _room(run, nodes, device, executor_of(run)), run.scale.most)
    fitting = (size for size in range(room, 0, -1) if _always_decodes(run, nodes, device, executor_of(run), size))
    return max(run.scale.least, next(fitting, 0))


def check_fit(run: Run, nodes: Nodes, device: str, executor: str) -> None:
    """Refuse what could never start on `nodes`, or may wait for ever. Raises LaunchError with the numbers."""
    workers, share = run.scale.least, run.scale.cpus_per_worker
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
    return _always_decodes(run, nodes, device, executor_of(run), run.scale.most, groups)


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
        if least > workers_on(run, node, device):
            return True  # its GPUs, or whole workers, are used up before its CPUs are
        blocking += least
    return groups * workers < blocking


def _room(run: Run, nodes: Nodes, device: str, executor: str) -> int:
    """How many workers find their place when the decoding has its own, on the node where it costs fewest of them."""
    decoding = DECODING_CPUS + READING_CPUS if executor == "ray" else 0.0
    lost = [
        workers_on(run, node, device) - workers_on(run, node, device, decoding)
        for node in nodes
        if node.get("CPU", 0.0) >= decoding
    ]
    return max(0, sum(workers_on(run, node, device) for node in nodes) - min(lost)) if lost else 0


def described(nodes: Nodes) -> str:
    """The nodes of a cluster, in a few words."""
    kinds = Counter((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)
    words = [f"{count} x ({cpus:g} CPUs{f', {gpus:g} GPUs' if gpus else ''})" for (cpus, gpus), count in kinds.items()]
    return f"nodes: {', '.join(words) or 'none'}"


class Demand:
    """Tells a cluster that can grow how large it is to be for a run: nodes for `scale.workers`, the most of them.

    Through the actor that Ray Train and Ray Data use for that: it adds up what all of them ask for, and forgets a
    request that is not renewed. With `ray.autoscaler.sdk.request_resources` the nodes of a driver that was killed would
    stay for ever.
    """

    def __init__(self, run: Run, device: str) -> None:
        each = {"CPU": max(float(run.scale.threads), run.scale.cpus_per_worker)}
        self._bundles = [{**each, **({"GPU": 1.0} if device == "cuda" else {})} for _ in range(run.scale.most)]
        self._name = f"raycls-{uuid4().hex}"
        self._asked = float("-inf")
        self._coordinator: Any = None

    def renew(self) -> None:
        """Ask, or ask again before it is forgotten; cheap enough to be called at any time."""
        from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client

        autoscaling: Any = autoscaling_coordinator_client  # not made for others, and the only one whose requests end

        if time.monotonic() - self._asked < _RENEW_SECONDS:
            return
        self._asked = time.monotonic()
        self._coordinator = self._coordinator or autoscaling.get_or_create_autoscaling_coordinator()
        self._coordinator.request_resources.remote(
            requester_id=self._name,
            resources=self._bundles,
            expire_after_s=_FORGET_SECONDS,
            priority=autoscaling.ResourceRequestPriority.LOW,  # what decoding needs of the nodes comes first
        )

    def close(self) -> None:
        if self._coordinator is not None:
            self._coordinator.cancel_request.remote(requester_id=self._name)


def wait_for_room(
    run: Run,
    device: str,
    nodes: Callable[[], Nodes],
    *,
    patient: bool,
    grows: bool,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
    size: Callable[[Run, Nodes, str], int] = group_size,
) -> int:
    """Workers of the next group, by `size`; 0 where `stopped` came first. Waits up to `scale.wait` for nodes where
    `patient`, and asks for them where the cluster `grows`.

    Raises LaunchError where what is there does not do, and nothing more came or can come.
    """
    began, told, demand = time.monotonic(), False, Demand(run, device)
    try:
        while True:
            there = nodes()
            try:
                check_fit(run, there, device, executor_of(run))
                return size(run, there, device)
            except LaunchError as error:
                waited = time.monotonic() - began
                if not patient or waited >= (run.scale.wait.seconds or 0.0):
                    raise _waited(error, waited) if patient else error from None
                if not told:
                    told = True
                    say(_waiting_text(run, device, there))
                if grows:
                    demand.renew()
            if stopped():
                return 0
            time.sleep(_LOOK_SECONDS)
    finally:
        demand.close()


def _waiting_text(run: Run, device: str, nodes: Nodes) -> str:
    each = f"{max(float(run.scale.threads), run.scale.cpus_per_worker):g} CPUs" + (
        ", 1 GPU" if device == "cuda" else ""
    )
    workers = f"{run.scale.least}" + (f" to {run.scale.most}" if run.scale.elastic else "")
    return f"waiting up to {run.scale.wait} for nodes with {workers} x ({each}); {described(nodes)}"


def _waited(error: LaunchError, seconds: float) -> LaunchError:
    return LaunchError(
        f"no nodes came within {seconds:.0f} seconds that the run fits on",
        found=error.found,
        valid=error.valid,
        fix="add nodes, or raise scale.wait; the same command goes on from the newest checkpoint, if there is one",
    )
