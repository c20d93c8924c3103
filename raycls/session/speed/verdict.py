"""What bounds a training, and what can be changed about it: arithmetic on what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from raycls.config.sections.run import Run
from raycls.config.write import override
from raycls.quantities import bound_by, plural, rate_text

__all__ = ["Change", "Costs", "Verdict", "judged"]

_ROUNDING = 1e-6
_PACKED, _EVALUATED = 256, 8 / 7
"""The shorter side that `raycls pack` gives larger images, and what an evaluation resizes them to, in crops."""
_GAIN = 1.05
"""From which on processes beside the steps are proposed."""


@dataclass(frozen=True)
class Costs:
    """Medians: seconds per image of one process, and what the whole run did."""

    fetch: float
    decode: float
    augment: float
    sample: float
    """The three together."""
    move: float
    step: float
    data_wait: float
    """Part of the time of the whole that was spent waiting for data."""
    gain: float = math.inf
    """How many times as fast the plain loader was, which makes samples beside the steps; infinite where the two cannot
    be compared."""

    @property
    def dearest(self) -> str:
        """The part of a sample that takes longest."""
        parts = {"fetching": self.fetch, "decoding": self.decode, "augmenting": self.augment}
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Change:
    """Something to try: overrides or options, as they are typed, and what they do."""

    typed: str
    """Empty where there is nothing to type."""
    why: str
    command: str = "bench"
    """Of raycls, with the config and these overrides or options."""


@dataclass(frozen=True)
class Verdict:
    """`by` is `data` or `the step`, as a log line has it; `text` says it with numbers."""

    by: str
    part: str
    text: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Where:
    run: Run
    executor: str
    device: str
    cpus: int
    native_bf16: bool
    precision: str
    ahead: bool

    @property
    def workers(self) -> int:
        return max(1, self.run.scale.max_workers)

    @property
    def decoders(self) -> int:
        """CPUs that make samples."""
        if self.executor == "inline":
            return self.workers
        if self.executor == "processes":
            return min(self.workers * self.run.data.processes, max(1, self.cpus - self._stepping))
        return max(1, self.cpus - self._stepping)

    @property
    def beside(self) -> int:
        """What makes samples beside the steps of one worker: processes, or a thread; 0 for those of Ray."""
        return self.run.data.processes if self.executor == "processes" else int(self.ahead)

    @property
    def between(self) -> bool:
        """Whether a worker makes its samples between its steps."""
        return self.executor == "inline" and not self.ahead

    @property
    def idle(self) -> int:
        """CPUs that nothing of the run keeps busy."""
        beside = self.workers * self.beside
        return max(0, self.cpus - self._stepping - beside) if self.executor != "ray" else 0

    @property
    def _stepping(self) -> int:
        """CPUs that compute steps: one to feed each GPU, or the threads of each worker."""
        return self.workers * (1 if self.device == "cuda" else self.run.scale.threads)


def judged(
    run: Run,
    costs: Costs,
    *,
    executor: str,
    device: str,
    cpus: int,
    precision: str,
    native_bf16: bool,
    ahead: bool = False,
) -> Verdict:
    """What bounds `run` on a machine of so many CPUs, where `executor` makes its samples, `ahead` in a thread.

    `precision` is that of its steps, `native_bf16` whether the device has bf16 of its own.
    """
    where = _Where(run, executor, device, cpus, native_bf16, precision, ahead)
    by = bound_by(costs.data_wait)
    could = where.workers / (costs.step + costs.move)
    made = where.decoders / costs.sample
    if by == "data":
        wanted = could * costs.sample
        # A worker that makes its samples between its steps needs other CPUs for them, to lose no time.
        there = where.idle + (0 if where.between else where.decoders)
        lacking = math.ceil(wanted - _ROUNDING) - there
        more = f": {plural(lacking, 'more CPU')}" if lacking > 0 else ""
        between = " between the steps" if where.between else ""
        alone = " alone" if where.between else ""
        text = (
            f"{costs.dearest}{between}: {rate_text(made)} images/s of {plural(where.decoders, 'CPU')} against "
            f"{rate_text(could)} that the step{alone} could take{more}"
        )
        return Verdict(by, costs.dearest, text, tuple(_for_data(where, costs, wanted)))
    part = "moving data to the device" if costs.move > costs.step else "computing"
    text = (
        f"{part}: {rate_text(could)} images/s, and {rate_text(made)} could be made by {plural(where.decoders, 'CPU')}"
    )
    return Verdict(by, part, text, tuple(_for_steps(where)))


def _for_data(where: _Where, costs: Costs, wanted: float) -> Iterator[Change]:
    run = where.run
    processes = math.ceil(wanted / where.workers - _ROUNDING)
    free = (where.idle + (where.decoders if where.beside else 0)) // where.workers
    more = free > where.beside
    if where.executor != "ray" and more and costs.gain > _GAIN:
        asked = min(free, max(1, processes))
        typed = [override("data.processes", asked)]
        typed = typed if where.executor == "processes" else [override("data.executor", "processes"), *typed]
        yield Change(" ".join(typed), f"{plural(asked, 'process')} beside each worker make the samples")
    elif where.executor == "inline" and where.cpus > where.workers:
        fewer = max(1, (where.cpus - where.workers) // where.workers)
        if where.device == "cpu" and run.scale.threads > 1:
            threads = override("scale.threads", max(1, run.scale.threads - fewer))
            yield Change(
                f"{threads} {override('data.executor', 'processes')} {override('data.processes', fewer)}",
                "fewer threads for the step, and processes that make samples on their CPUs; other bits",
            )
    if costs.dearest != "augmenting" and run.data.cache == "off":
        yield Change(override("data.cache", "memory"), "from the second epoch on nothing is decoded, where it fits")
    if costs.dearest == "augmenting":
        yield Change("", "fewer or cheaper operations in augment.train, or a smaller data.image_size")
    elif costs.dearest == "decoding":
        side = math.ceil(run.data.image_size * _EVALUATED)
        size = f" --size {side}" if side > _PACKED else ""
        yield Change(f"--out packed{size}", "images no larger than they are trained need less decoding", "pack")
    else:
        yield Change("", "the data on a faster disk, or on one of this machine")


def _for_steps(where: _Where) -> Iterator[Change]:
    run = where.run
    threads = where.cpus // where.workers
    if where.device == "cpu" and threads > run.scale.threads:
        yield Change(override("scale.threads", threads), "all CPUs compute the step; other bits")
    if where.precision == "off" and where.native_bf16:
        yield Change(override("train.amp", "bf16"), "this device has bf16 of its own; other bits")
    if run.train.memory_format != "channels_last":
        yield Change(override("train.memory_format", "channels_last"), "convolutions are mostly faster; other bits")
    alone = run.train.activation_checkpointing == "off" and run.train.batch_norm != "sync"
    if run.train.compile == "off" and alone:
        yield Change(override("train.compile", "default"), "faster steps after minutes of compiling; other bits")
    if run.train.activation_checkpointing == "on":
        yield Change(override("train.activation_checkpointing", "off"), "no forward pass twice, for more memory")
