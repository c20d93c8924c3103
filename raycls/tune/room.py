"""How many trials a cluster has room for, said with its arithmetic; and the wait for nodes where it may grow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from raycls.cluster.connection import Cluster
from raycls.cluster.nodes import nodes
from raycls.config.sections.run import Run
from raycls.errors import LaunchError
from raycls.launch.placing.fit import (
    Nodes,
    check_device,
    check_fit,
    check_largest,
    executor_of,
    never_waits,
    workers_on,
)
from raycls.launch.placing.waiting import Request, wait_for_nodes
from raycls.quantities import plural
from raycls.tune.plan import Search

__all__ = ["Room", "Slots"]

_ROUNDING = 1e-6
_DATA_CPUS = 1.0
"""CPUs that decoding through Ray Data keeps busy beside the workers of one trial."""
_NODES_SECONDS = 5.0
"""How often the cluster is asked for its size."""


@dataclass(frozen=True)
class Slots:
    """What one trial takes.

    A trial of one worker reserves its threads with Tune. One of several reserves its workers' part itself, all of it
    or none (a placement group), so that no two trials hold a part and wait for the other's.
    """

    run: Run
    device: str
    threads: float
    """CPUs that its training threads keep busy."""
    decoding: float
    """CPUs that its decoding keeps busy beside them; where they are few, it takes its turn."""
    gpus: float

    @classmethod
    def of(cls, run: Run, device: str) -> Slots:
        workers = max(1, run.scale.max_workers)
        # Ray Data is for trials of several workers: the others decode in their own process, or in some beside it.
        executor = executor_of(run) if workers > 1 or run.data.executor == "processes" else "inline"
        decoding = {"ray": _DATA_CPUS, "processes": float(run.data.processes * workers)}.get(executor, 0.0)
        part = run.search.gpus_per_trial
        gpus = 0.0 if device == "cpu" else float(workers) if isinstance(part, str) else part
        return cls(run, device, workers * run.scale.cpus, decoding, gpus)

    @property
    def nested(self) -> bool:
        """Whether a trial has a group of workers of its own."""
        return self.run.scale.max_workers > 1

    @property
    def cpus(self) -> float:
        """CPUs that a trial keeps busy."""
        return self.threads + self.decoding

    def resources(self) -> dict[str, float]:
        """What Tune reserves for a trial."""
        if self.nested:  # the process that waits for the workers: on the head, which is not taken away
            return {"node:__internal_head__": 0.001}
        return {"CPU": self.threads, **({"GPU": self.gpus} if self.gpus else {})}

    def bundles(self) -> list[dict[str, float]]:
        """What a cluster that grows is asked for, for one trial: each is on one node."""
        workers = self.run.scale.max_workers if self.nested else 1
        each = {"CPU": self.threads / workers, **({"GPU": self.gpus / workers} if self.gpus else {})}
        return [dict(each) for _ in range(workers)] + [{"CPU": 1.0} for _ in range(ceil(self.decoding))]

    def text(self) -> str:
        """The same in words."""
        return " and ".join(
            f"{count} x ({cpus:g} CPUs{f', {gpus:g} GPUs' if gpus else ''})"
            for (cpus, gpus), count in Counter((each["CPU"], each.get("GPU", 0)) for each in self.bundles()).items()
        )

    def check(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Refuse a trial that can never start on `nodes`, or may wait for ever. Raises LaunchError with the numbers."""
        if self.nested:
            check_fit(self.run, nodes, self.device, executor_of(self.run))
        elif not self._together(nodes, 1):
            raise LaunchError(
                "no trial fits the cluster: the search would wait for ever",
                found=", ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
                or "no node",
                valid=f"{self.threads:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "") + " on one node",
                fix="lower scale.threads or search.gpus_per_trial, or add nodes",
            )

    def count(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Trials at a time on `nodes`: as many as keep its CPUs busy, or `search.max_concurrent`, and never more than
        can be there together. At least 1 where one can start at all.
        """
        limit = self.run.search.max_concurrent
        if isinstance(limit, str):
            limit = max(1, int(sum(node.get("CPU", 0.0) for node in nodes) / self.cpus + _ROUNDING))
        return self._together(nodes, limit)

    def arithmetic(self, nodes: Sequence[Mapping[str, float]]) -> str:
        """The count and where it comes from, in one line."""
        cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
        workers, threads = max(1, self.run.scale.max_workers), self.run.scale.cpus
        each = plural(threads, "thread")
        each = f"{workers} x {each}" if self.nested else each
        each += f" + {self.decoding:g} for decoding" if self.decoding else ""
        text = f"{self.count(nodes)} at a time: {cpus:g} CPUs, {self.cpus:g} for a trial ({each})"
        if self.gpus:
            text += f"; {gpus:g} GPUs, {self.gpus:g} for a trial"
        if self.nested:
            text += "; the trials' drivers take none"
        limit = self.run.search.max_concurrent
        return text + (f"; search.max_concurrent {limit}" if isinstance(limit, int) else "")

    def _together(self, nodes: Sequence[Mapping[str, float]], most: int) -> int:
        """Trials, up to `most`, that can be there at the same time, whichever node Ray gives to whom."""
        if not self.nested:
            return min(most, sum(self._alone(node) for node in nodes))
        scale = self.run.scale
        places = sum(workers_on(scale.cpus_per_worker, node, self.device) for node in nodes) // scale.max_workers
        fitting = (
            trials for trials in range(min(most, places), 0, -1) if never_waits(self.run, nodes, self.device, trials)
        )
        return next(fitting, 0)

    def _alone(self, node: Mapping[str, float]) -> int:
        count = int(node.get("CPU", 0.0) / self.threads + _ROUNDING)
        if not self.gpus:
            return count
        return min(count, int(node.get("GPU", 0.0)) * int(1 / self.gpus + _ROUNDING))  # a part is of one GPU


class Room:
    """How many trials of `plan` may be there at a time. LaunchError where the cluster can never have room for one."""

    def __init__(self, plan: Search, cluster: Cluster, device: str, say: Callable[[str], None]) -> None:
        self.slots = Slots.of(plan.run, device)
        self._plan, self._say, self._grows = plan, say, cluster.grows
        self._nodes: Nodes = cluster.nodes
        check_device(plan.run, device, cluster)
        check_largest(cluster, self._fits)
        self._request = Request(self.slots.bundles(), 1, self._wanted()) if cluster.grows else None
        self._asked = float("-inf")

    @property
    def text(self) -> str:
        """The count and where it comes from, in one line."""
        return self.slots.arithmetic(self._nodes)

    def wait(self, stopped: Callable[[], bool]) -> bool:
        """Wait for nodes that one trial fits on, where the cluster grows; False where `stopped` came first."""
        found = wait_for_nodes(
            self._fits,
            nodes,
            f"{self.slots.text()} for a trial",
            self._plan.run.scale.wait,
            demand=self._request,
            patient=self._grows,
            stopped=stopped,
            say=self._say,
        )
        self._nodes, self._asked = found or self._nodes, time.monotonic()
        return found is not None

    def ask(self, *, confirming: bool = False) -> None:
        """Ask for as many places as there are trials for, where the cluster grows. Cheap, see `Request.renew`."""
        if self._request is not None:
            self._request.want(self._wanted(confirming=confirming))
            self._request.renew()

    def look(self) -> int:
        """Trials that may have begun and not ended, now: the cluster may have grown."""
        if time.monotonic() - self._asked > _NODES_SECONDS:
            self._asked, before = time.monotonic(), self.slots.count(self._nodes)
            self._nodes = nodes()
            if self.slots.count(self._nodes) != before:
                self._say(self.text)
        return self.most()

    def most(self) -> int:
        """Trials at a time on the nodes as they were when last asked."""
        return max(1, self.slots.count(self._nodes))

    def close(self) -> None:
        """Ask for nothing any more."""
        if self._request is not None:
            self._request.close()

    def _wanted(self, *, confirming: bool = False) -> int:
        """Trials that would be there together if there were room: those that have not ended."""
        search, board = self._plan.run.search, self._plan.board
        if confirming:
            left = sum(trial.phase != "search" and not trial.ended for trial in board.ledger.trials.values())
        elif board.has_more:
            left = search.trials - sum(trial.ended for trial in board.searched)
        else:
            left = len(board.running)
        limit = left if isinstance(search.max_concurrent, str) else search.max_concurrent
        return max(1, min(left, limit))

    def _fits(self, nodes: Nodes) -> None:
        """Raise LaunchError where no trial, or not all of a population, could start on `nodes`."""
        self.slots.check(nodes)
        trials, places = self._plan.run.search.trials, self.slots.count(nodes)
        if self._plan.board.population is not None and self.slots.nested and places < trials:
            raise LaunchError(
                "a population of trials with several workers each needs a place for every one of them",
                where="search.trials",
                found=self.slots.arithmetic(nodes),
                valid=f"at most {places} trials",
                fix="lower search.trials, set scale.workers to 1 (such trials take turns), or add nodes",
            )
