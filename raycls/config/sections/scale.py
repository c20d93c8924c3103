"""The options of `scale`: who computes, how many of them, and what happens when they come and go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, Section, Tuple

__all__ = ["ScaleConfig"]


class ScaleConfig(Section):
    """Who computes."""

    workers: Annotated[int, Field(ge=0)] | Annotated[tuple[Count, Count], Tuple] = 1
    """Training processes. 0 trains in this process, without Ray: for development, under a debugger.
    `[min, max]` is elastic: as many as there is room for. Workers join and leave at a checkpoint; the global batch,
    the micro-batches and the learning rate stay what they are."""
    threads: Count = 1
    """CPU threads of one worker. They decide the bits of a run on CPUs, so they are never guessed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: one GPU per worker where there are GPUs, else CPU."""
    cpus_per_worker: Annotated[float, Field(ge=0.001)] = 0.01
    """CPUs that Ray sets aside for one worker; few, so that data tasks always find room."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How many times lost workers are replaced before the run fails. A loss after a node's notice that it will be taken
    away is not counted."""
    max_preemption_failures: Annotated[int, Field(ge=0)] | Literal["off"] = "off"
    """How many times a run leaves, or loses, nodes after such a notice before it ends; `off`: it never does."""
    wait: Duration = Duration(15, "m")
    """How long a run waits for room: for nodes that the cluster may grow by or has lost, and for what other programs
    use."""
    resize_every: Duration = Duration(30, "s")
    """How often an elastic run looks whether there is room for more workers."""

    @property
    def min_workers(self) -> int:
        """The min of `workers`."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        """The max of `workers`."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def elastic(self) -> bool:
        return self.min_workers < self.max_workers

    @property
    def cpus(self) -> float:
        """CPUs that one worker keeps busy."""
        return max(float(self.threads), self.cpus_per_worker)

    @model_validator(mode="after")
    def _units(self) -> ScaleConfig:
        if self.min_workers > self.max_workers:
            raise ValueError(f"workers: [min, max] are in the wrong order: [{self.min_workers}, {self.max_workers}]")
        for name in ("wait", "resize_every"):
            value: Duration = getattr(self, name)
            if not value.seconds:
                raise ValueError(f"{name} is a time such as 15m and greater than 0: {value} is not")
        return self
