"""How many trials a cluster has room for, said with its arithmetic, and refused where not even one has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raycls.config.schema import Run
from raycls.errors import LaunchError
from raycls.launch.preflight import check_fit, executor_of, room

__all__ = ["Slots"]

_DATA_CPUS = 1.0
"""CPUs that decoding through Ray Data keeps busy beside the workers of one trial."""


@dataclass(frozen=True)
class Slots:
    """What one trial takes.

    A trial of one worker reserves it with Tune. One of several reserves its workers' part itself, all of it or none
    (a placement group), so that no two trials hold a part and wait for the other's.
    """

    run: Run
    device: str
    cpus: float
    """CPUs that its threads keep busy."""
    gpus: float

    @classmethod
    def of(cls, run: Run, device: str) -> Slots:
        workers = max(1, run.scale.workers)
        own = max(float(run.scale.threads), run.scale.cpus_per_worker)
        decoding = 0.0
        if workers > 1:
            executor = executor_of(run)
            decoding = {"ray": _DATA_CPUS, "processes": float(run.data.processes * workers)}.get(executor, 0.0)
        part = run.search.gpus_per_trial
        gpus = 0.0 if device == "cpu" else float(workers) if isinstance(part, str) else part
        return cls(run, device, workers * own + decoding, gpus)

    @property
    def nested(self) -> bool:
        """Whether a trial has a group of workers of its own."""
        return self.run.scale.workers > 1

    def resources(self) -> dict[str, float]:
        """What Tune reserves for a trial."""
        if self.nested:  # the process that waits for the workers: on the head, which is not taken away
            return {"node:__internal_head__": 0.001}
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def check(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Refuse a trial that can never start on `nodes`. Raises LaunchError with the numbers."""
        if self.nested:
            check_fit(self.run, nodes, self.device, executor_of(self.run))
        elif not self._alone(nodes):
            raise LaunchError(
                "no trial fits the cluster: the search would wait for ever",
                found=", ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
                or "no node",
                valid=f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "") + " on one node",
                fix="lower scale.threads or search.gpus_per_trial, or add nodes",
            )

    def count(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Trials at a time on `nodes`; at least 1 where one can start at all."""
        limit = self.run.search.max_concurrent
        most = self._grouped(nodes) if self.nested else self._alone(nodes)
        if isinstance(limit, int):
            return min(limit, self._reserved(nodes) if self.nested else most)
        return most

    def arithmetic(self, nodes: Sequence[Mapping[str, float]]) -> str:
        """The count and where it comes from, in one line."""
        cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
        workers, threads = max(1, self.run.scale.workers), self.run.scale.threads
        each = f"{workers} x {threads} thread{'s' if threads > 1 else ''}" if self.nested else f"{threads} threads"
        decoding = self.cpus - workers * max(float(threads), self.run.scale.cpus_per_worker)
        each += f" + {decoding:g} for decoding" if decoding > 0 else ""
        text = f"{self.count(nodes)} at a time: {cpus:g} CPUs, {self.cpus:g} for a trial ({each})"
        if self.gpus:
            text += f"; {gpus:g} GPUs, {self.gpus:g} for a trial"
        if self.nested:
            text += "; the trials' drivers take none"
        limit = self.run.search.max_concurrent
        return text + (f"; search.max_concurrent {limit}" if isinstance(limit, int) else "")

    def _alone(self, nodes: Sequence[Mapping[str, float]]) -> int:
        def places(node: Mapping[str, float]) -> int:
            count = int(node.get("CPU", 0.0) / self.cpus + 1e-6)
            return min(count, int(node.get("GPU", 0.0) / self.gpus + 1e-6)) if self.gpus else count

        return sum(places(node) for node in nodes)

    def _grouped(self, nodes: Sequence[Mapping[str, float]]) -> int:
        busy = int(sum(node.get("CPU", 0.0) for node in nodes) / self.cpus + 1e-6)
        reserved = self._reserved(nodes)
        return min(reserved, max(1, busy))

    def _reserved(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Trials whose reservations fit at the same time, with room for decoding left: more would wait for ever."""
        return room(self.run, nodes, self.device, executor_of(self.run)) // self.run.scale.workers
