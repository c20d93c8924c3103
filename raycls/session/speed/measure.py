"""Rounds in which the parts of a training take turns on this machine, and what they say about it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count

from raycls.config.sections.run import Run
from raycls.data.slices import Slice, Timeline
from raycls.data.stream import Stream, open_stream
from raycls.progress import progress
from raycls.quantities import cores
from raycls.session.job import Job, World
from raycls.session.setup import in_memory, make_maker
from raycls.session.speed.plain import plain_stream
from raycls.session.speed.samples import Made, Samples
from raycls.session.speed.steps import Steps, Turn, again
from raycls.train.plan import Plan

__all__ = ["Measured", "Rate", "measured", "part_of", "rate"]

ROUNDS, _FEWEST_ROUNDS = 5, 2
_MOST_STEPS = 10_000
"""Of one turn."""
_MOST_PROCESSES = 16
"""Of the plain loader: more are of no use to one process that computes steps."""
_PHASE = "measuring"


@dataclass(frozen=True)
class Rate:
    """Images per second: median, least and greatest over `n` turns."""

    median: float
    min: float
    max: float
    n: int


@dataclass
class Measured:
    """What was found of a run, by turn."""

    precision: str
    pinned: bool
    encoded: bool = True
    processes: int = 0
    """Of the plain loader."""
    made: list[Made] = field(default_factory=list[Made])
    steps: list[Turn] = field(default_factory=list[Turn])
    together: list[Turn] = field(default_factory=list[Turn])
    """Empty where the workers of the run are other processes."""
    plain: list[Turn] = field(default_factory=list[Turn])


def rate(values: Sequence[float]) -> Rate | None:
    """Of images per second; None where nothing was measured, or it took no time that a clock could see."""
    known = [value for value in values if math.isfinite(value)]
    return Rate(statistics.median(known), min(known), max(known), len(known)) if known else None


def part_of(run: Run, plan: Plan) -> Plan:
    """`plan` of what one worker of `run` computes, as if it were a run of its own; without evaluations."""
    workers = max(1, run.scale.max_workers)
    return replace(
        plan,
        batch_size=-(-plan.batch_size // workers),
        micro_batches=max(1, plan.micro_batches // workers),
        evaluate_every=0,
        rewind_every=0,
    )


def measured(run: Run, job: Job, plan: Plan, *, seconds: float, here: bool) -> Measured:
    """Let the parts of one worker take turns for `seconds`, and for two rounds at least.

    `here`: whether the run trains in this process, so that all parts together take turns with the others.
    """
    with ExitStack() as stack:
        progress("building the model")
        steps = Steps(run, job, plan, stack)
        split = job.dataset.splits["train"]
        maker = make_maker(run, plan, job.dataset, 1, "train")
        samples = Samples(maker, split)
        progress("making the first samples")
        ready, made = next(each for step in count() if (each := samples.make(step))[1].images)
        found = Measured(steps.precision, pinned=job.device == "cuda")
        found.processes = min(_MOST_PROCESSES, run.data.processes if job.executor == "processes" else cores())
        turns: list[Callable[[float], None]] = [
            _Samples(samples, found.made).take,
            _Ready(steps, ready, found.steps).take,
        ]
        per_image = made.seconds / made.images
        progress("starting the processes of the plain DataLoader")
        if here:
            timeline = Timeline(plan.order, 1, 0, 2**62, 0, 0, 1)
            whole = in_memory(run, maker, job.executor, World())
            stream = open_stream(run.data, job.executor, timeline, whole, 0, ahead=job.ahead)
            stack.callback(stream.close)
            beside = run.data.processes if job.executor == "processes" else int(job.ahead)
            ahead = beside and max(1, run.data.prefetch // beside) * beside
            turns.append(_Whole(steps, stream, found.together, beside, ahead, per_image).take)
        plain = plain_stream(maker, split, plan.order, processes=found.processes, pinned=found.pinned)
        stack.callback(plain.close)
        turns.append(_Whole(steps, plain, found.plain, found.processes, 2 * found.processes, per_image).take)
        for index, turn in enumerate(turns):  # what is done once, such as compiling, is no part of any turn
            progress("trying each part once", index, len(turns), "parts")
            turn(0.0)
        for values in (found.made, found.steps, found.together, found.plain):
            values.clear()
        _rounds(turns, seconds)
        found.encoded = samples.encoded
        return found


def _rounds(turns: Sequence[Callable[[float], None]], seconds: float) -> None:
    began, each = time.monotonic(), seconds / (ROUNDS * len(turns))
    for number in range(ROUNDS):
        for place in range(len(turns)):  # none always follows the same neighbour
            turns[(number + place) % len(turns)](each)
            progress(_PHASE, number * len(turns) + place + 1, ROUNDS * len(turns), "turns")
        if number + 1 >= _FEWEST_ROUNDS and time.monotonic() - began >= seconds:
            break


class _Samples:
    """Turns of making samples alone."""

    def __init__(self, samples: Samples, into: list[Made]) -> None:
        self._samples, self._into, self._steps = samples, into, count(1)

    def take(self, seconds: float) -> None:
        began, made = time.monotonic(), list[Made]()
        while not made or time.monotonic() - began < seconds:
            made.append(self._samples.make(next(self._steps))[1])
        sums = (sum(getattr(each, name) for each in made) for name in ("images", "fetch", "decode", "augment"))
        self._into.append(Made(*sums))


class _Ready:
    """Turns of steps whose batches are there."""

    def __init__(self, steps: Steps, ready: Slice, into: list[Turn]) -> None:
        self._steps, self._ready, self._into = steps, ready, into
        self._next, self._seconds = 0, 0.0

    def take(self, seconds: float) -> None:
        if not self._seconds:
            self._take(1)
        turn = self._take(_fitting(seconds, self._seconds))
        self._into.append(turn)

    def _take(self, steps: int) -> Turn:
        stream = again(self._steps.plan.order, self._ready, self._next)
        turn = self._steps.take(stream, self._next, steps, parted=True)
        self._next += steps
        self._seconds = turn.seconds / steps
        return turn


class _Whole:
    """Turns of steps with what `stream` makes, by `processes` of its own, or one thread, that are `ahead` by so many
    slices at most."""

    def __init__(
        self, steps: Steps, stream: Stream, into: list[Turn], processes: int, ahead: int, per_image: float
    ) -> None:
        self._steps, self._stream, self._into = steps, stream, into
        self._processes, self._ahead = processes, ahead
        self._next, self._seconds = 0, 0.0
        self._refill = ahead * steps.plan.batch_size * per_image / max(1, min(processes, cores()))

    def take(self, seconds: float) -> None:
        # What was made during the turns of others is put aside. Then the processes are at one place in their work, and
        # again after each has made a slice: whole rounds of them are what they make in that time.
        if self._seconds:
            for _ in range(self._ahead):
                self._stream.next("train", self._next)
                self._next += 1
        if self._processes or not self._seconds:
            self._take(max(1, self._processes))
        steps = _fitting(seconds, self._seconds)
        whole = -(-steps // max(1, self._processes)) * max(1, self._processes)
        self._into.append(self._take(whole))
        if self._processes:
            time.sleep(self._refill)  # they make the next slices, which is no part of the turn that follows

    def _take(self, steps: int) -> Turn:
        turn = self._steps.take(self._stream, self._next, steps)
        self._next += steps
        self._seconds = turn.seconds / steps
        return turn


def _fitting(seconds: float, each: float) -> int:
    return max(1, min(_MOST_STEPS, round(seconds / max(each, 1e-9))))
