"""Who decodes, where `data.executor: auto` leaves that to raycls: all executors give the same bytes, at other costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raycls.config.sections.run import Run
from raycls.errors import RayclsError
from raycls.launch.placing.fit import DECODING_CPUS, READING_CPUS, Nodes, executor_of
from raycls.session.data.unfit import tried
from raycls.session.setup import make_arrays
from raycls.train.plan import Plan

__all__ = ["Choice", "choose", "seconds_per_sample", "with_executor"]

_SHORT_S = 0.005
"""Decoding one worker's part of a batch in less is not worth another process."""
_TIMED = 9
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Choice:
    """An executor, and why it was chosen; no reason where it was asked for."""

    executor: str
    why: str = ""


def choose(run: Run, nodes: Nodes, device: str, *, grows: bool, decoding_s: Callable[[], float]) -> Choice:
    """The executor of `run` on these nodes.

    Ray Data starts processes that import what decoding needs (tens of seconds and CPU-seconds) and carries every image
    through the object store. That pays where CPUs would be idle otherwise: on nodes without workers, beside GPUs, or
    where the workers leave some. `decoding_s` measures the seconds that one sample takes to make; it is asked only
    where that decides.
    """
    if run.data.executor != "auto" or run.scale.max_workers == 0:
        return Choice(executor_of(run))
    if grows or run.scale.elastic or len(nodes) > 1:
        return Choice("ray", "other nodes decode too")
    cpus = sum(node.get("CPU", 0.0) for node in nodes) + _ROUNDING
    if device == "cpu" and cpus - run.scale.max_workers * run.scale.cpus < 1:
        return Choice("inline", "one node, whose CPUs the workers use")
    if cpus - run.scale.max_workers * run.scale.cpus_per_worker < DECODING_CPUS + READING_CPUS:
        return Choice("inline", "one node, whose CPUs the workers reserve")
    seconds = decoding_s() * run.data.batch_size / run.scale.max_workers
    if seconds < _SHORT_S:
        return Choice("inline", f"a worker's part of a batch takes {1000 * seconds:.1f} ms to decode")
    return Choice("ray", f"a worker's part of a batch takes {1000 * seconds:.0f} ms to decode, and other CPUs are free")


def with_executor(run: Run, executor: str) -> Run:
    """`run` as it is placed: with the executor that `auto` means here."""
    return run.model_copy(update={"data": run.data.model_copy(update={"executor": executor})})


def seconds_per_sample(run: Run, dataset: Any, plan: Plan, split: str) -> float:
    """How long one sample of an evaluation of `split`, or of a training where that is empty, takes to be read, decoded
    and augmented here: the median of a few, spread over the split.

    0 where none of them can be made: that is told where they are trained.
    """
    arrays, samples, taken = make_arrays(run, dataset.classes, plan), dataset.splits[split or "train"], list[float]()
    count = min(len(samples), _TIMED)
    for index in sorted({round(place * (len(samples) - 1) / max(count - 1, 1)) for place in range(count)}):
        with suppress(RayclsError):
            before = time.perf_counter()
            tried(arrays, samples, index, run.run.seed, train=not split)
            taken.append(time.perf_counter() - before)
    return statistics.median(taken) if taken else 0.0
