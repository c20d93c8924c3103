"""Steps of a training in this process, in turns with other work: the loop, the network and the optimizer of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch

from raycls import randomness
from raycls.allocator import keep_freed_memory
from raycls.config.sections.run import Run
from raycls.data.order import Order
from raycls.data.slices import Position, Slice
from raycls.data.stream import Stream
from raycls.errors import TrainError
from raycls.quantities import plural
from raycls.run.folder import RunFolder
from raycls.session import training
from raycls.session.data.unfit import first_sample
from raycls.session.job import Job, World
from raycls.session.messages import Started
from raycls.session.speed.samples import position
from raycls.tasks.base import Task
from raycls.train.loop import train as train_loop
from raycls.train.optimizers.clipping import build_clip
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic, autocast, resolve_precision
from raycls.train.ranks import Ranks
from raycls.train.recovery.memory import lacks_memory
from raycls.train.recovery.non_finite import NonFinite

__all__ = ["Steps", "Turn", "again", "positions"]


@dataclass(frozen=True)
class Turn:
    """Some steps, one after the other."""

    images: int
    seconds: float
    waited: float
    """Seconds of these for data."""
    moved: float
    """Seconds in `Task.batch`: to the device, normalised, mixed."""

    @property
    def computed(self) -> float:
        """Seconds for the rest: forward, backward and update."""
        return self.seconds - self.waited - self.moved


class Steps:
    """What one worker of `job` computes in a step, by `plan`, without the other workers; lives as long as `stack`.

    Nothing is written: checkpoints, history and ledger are left out.
    """

    def __init__(self, run: Run, job: Job, plan: Plan, stack: ExitStack) -> None:
        keep_freed_memory()
        stack.enter_context(arithmetic(threads=run.scale.threads, strict=plan.reduction == "exact"))
        stack.enter_context(randomness.kept())
        device = torch.device(job.device)
        world, ranks = World(device=device), Ranks(device=device)
        self.precision = resolve_precision(run.train.amp, device)
        start = Started(1, 0, False, 1, self.precision)
        state, task, schedule, ready = training.built(run, job, plan, RunFolder(job.folder), start, world)
        example = partial(_example, run, job, plan, task)
        stack.enter_context(training.surroundings(run, plan, state, ready, ranks, world, example))
        optim = run.optim.scaled(run.data.batch_size)
        self.plan, self.device = plan, device
        self._state, self._task, self._ranks = state, task, ranks
        self._reduction = training.reducing(run, plan, state, task, ranks, None, example)
        self._more: dict[str, Any] = {
            "precision": autocast(self.precision, device),
            "lr": lambda step: optim.lr * schedule.factor(step),
            "ready": ready,
            "clip": build_clip(run.optim, state.model),
        }
        self._moved, self._waits, self._images = 0.0, False, 0
        self._batch = task.batch
        vars(task)["batch"] = self._clocked

    def take(self, stream: Stream, first: int, steps: int, *, parted: bool = False) -> Turn:
        """Train the steps from `first` with what `stream` has. TrainError where memory runs out.

        `parted`: wait for the device around the transfer, so that its time is known.
        """
        self._state.step, self._waits, self._moved, self._images = first, parted, 0.0, 0
        waited = stream.waited
        self._synchronize()
        began = time.perf_counter()
        try:
            train_loop(
                self._state,
                replace(self.plan, total_steps=first + steps),
                self._task,
                stream,
                self._ranks,
                self._reduction,
                non_finite=NonFinite(note=lambda step, loss, norm: None, most=2**62),  # whatever the numbers are
                there=self._there,
                seen=lambda step, batch, parts: None,
                log=lambda state, norm, waited: None,
                evaluate=lambda state: False,
                save=lambda state: None,
                **self._more,
            )
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            raise self._lack(error) from error
        self._synchronize()
        seconds = time.perf_counter() - began
        return Turn(self._images, seconds, stream.waited - waited, self._moved)

    def _there(self, batch: Slice) -> Order:
        """The order of a step without its bad images; its images are counted."""
        order = self.plan.order.without(tuple(bad.place for bad in batch.bad or ()))
        self._images += order.rows(batch.position.step)
        return order

    def _clocked(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Any:
        if self._waits:
            self._synchronize()
        began = time.perf_counter()
        batch = self._batch(arrays, train=train)
        if self._waits:
            self._synchronize()
        self._moved += time.perf_counter() - began
        return batch

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _lack(self, error: BaseException) -> TrainError:
        rows, parts = self.plan.batch_size, self.plan.micro_batches
        return TrainError(
            "a step needs more memory than there is",
            where="data.batch_size, train.micro_batches",
            found=f"{plural(rows, 'image')} in {plural(parts, 'micro-batch')}; {str(error).splitlines()[0]}",
            fix="a smaller data.batch_size, a larger train.micro_batches, or a smaller network",
        )


def _example(run: Run, job: Job, plan: Plan, task: Task) -> tuple[torch.Tensor, ...]:
    return task.example(first_sample(run, job.dataset, plan))


def positions(order: Order, first: int) -> Iterator[Position]:
    """Those of a single rank from the step `first` on."""
    return (position(order, step) for step in count(first))


def again(order: Order, ready: Slice, first: int) -> Stream:
    """The samples of `ready` in every step from `first` on: batches that nobody waits for."""

    whole = np.arange(order.rows(0))
    if len(ready.ids) < len(whole):  # it lacks bad images: others stand for these
        whole %= len(ready.ids)
        ready = replace(ready, ids=ready.ids[whole], arrays={name: of[whole] for name, of in ready.arrays.items()})

    def slices() -> Iterator[Slice]:
        for place in positions(order, first):
            rows = order.rows(place.step)
            yield Slice(place, ready.ids[:rows], ready.part(0, rows))

    return Stream(slices(), positions(order, first))
