"""What the first worker says of itself while it works, for whoever has the screen.

The loop counts, a thread posts: at most two messages a second, and none while nothing changes. No rank waits for
another one for it, nothing is asked of a GPU, and no bit depends on it. Which slice is handed out, and when the next
one is asked for, is all that has to be known: then the one before it is dealt with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from raycls.data.slices import TRAIN, Position, Slice, Timeline
from raycls.data.stream import Stream
from raycls.progress import TRAINING, Progress, Steps, listening
from raycls.session.messages import Post, Working

__all__ = ["Reporter"]

_EVERY = 0.5
"""Seconds between two messages."""
_WAITS = 1.0
"""Seconds after which a wait for data is told."""


class Reporter:
    """Posts `Working` while it is open. A context manager; `quiet` says nothing."""

    def __init__(self, post: Post, *, quiet: bool = False) -> None:
        self._post, self._quiet = post, quiet
        self._now = Progress("starting")
        self._since = time.monotonic()
        self._steps: Steps | None = None
        self._waiting: float | None = None
        self._posted: tuple[Progress, bool] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raycls-progress", daemon=True)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if not self._quiet:
            self._stack.enter_context(listening(self.tell))
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._closed.set()
        if self._thread.ident:
            self._thread.join(_EVERY)

    def tell(self, now: Progress) -> None:
        """This goes on from now on."""
        self._now, self._since = now, time.monotonic()

    def watch(self, stream: Stream, timeline: Timeline) -> Stream:
        """`stream`, whose slices are counted on their way to the loop."""
        if not self._quiet:
            stream.slices = self._watched(stream.slices, timeline)
        return stream

    def _watched(self, slices: Iterator[Slice], timeline: Timeline) -> Iterator[Slice]:
        while True:
            began = self._waiting = time.monotonic()
            made = next(slices, None)
            self._waiting = None
            if made is None:
                return
            training = made.position.kind == TRAIN
            self._handed_out(made.position, timeline)
            steps = self._steps
            if training and steps is None:  # the wait for the first batch is no part of the pace
                steps = Steps(made.position.step, 0, 0.0, time.time())
            elif training and steps is not None:
                steps = replace(steps, waited=steps.waited + time.monotonic() - began)
            self._steps = steps
            yield made
            if training and steps is not None:  # the next one is asked for: this one is dealt with
                images = steps.images + timeline.order.rows(made.position.step)
                self._steps = Steps(made.position.step + 1, images, steps.waited, time.time())
                self.tell(Progress(TRAINING, made.position.step + 1, timeline.stop, "steps"))

    def _handed_out(self, position: Position, timeline: Timeline) -> None:
        if position.kind == TRAIN:
            if self._now.phase != TRAINING:
                self.tell(Progress(TRAINING, position.step, timeline.stop, "steps"))
            return
        # Every rank has a batch of this round: those before it are counted.
        done = min(timeline.evaluate_rows, (position.index - position.rank) * timeline.evaluate_batch)
        self.tell(Progress("evaluating", done, timeline.evaluate_rows, "images"))

    def _run(self) -> None:
        while not self._closed.wait(_EVERY):
            now, since, waiting = self._now, self._since, self._waiting
            waits = waiting is not None and time.monotonic() - waiting >= _WAITS
            if (now, waits) == self._posted:
                continue
            self._posted = (now, waits)
            ago = time.monotonic() - (waiting if waits and waiting is not None else since)
            self._post(Working(now, waits, ago, self._steps))
