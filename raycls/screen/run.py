"""What a user sees of a run: a progress display on a terminal, plain lines elsewhere.

Both kinds are fed by the driver with the records of `history.jsonl`, and between them with how far the work is
(`raycls.progress`, from this process and from the first worker), so that nothing stands still. A display that can no
longer be written to (a closed pipe) goes quiet; the run goes on.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, Self

from raycls.config.sections.track import TrackConfig
from raycls.progress import TRAINING, Progress, Steps
from raycls.screen.activity import Activity, Pace, Speed
from raycls.screen.live import LiveRegion
from raycls.screen.run_text import (
    Ending,
    Record,
    clock_text,
    ending_lines,
    epoch_text,
    evaluation_text,
    header_lines,
    join,
    place,
    speed_text,
    train_text,
)
from raycls.screen.terminal import Screen, is_live

__all__ = ["Display", "PlainDisplay", "RichDisplay", "make"]


class Display(Screen, ABC):
    """Shows one run. A context manager: in it, what this process says of its progress is shown; leaving it gives the
    terminal back.

    `start` takes what is known of the run before its first step; every key may be absent: `folder`,
    `source`, `classes` (number), `splits` ({name: samples}), `cut_from_train` (whether val is), `model`,
    `parameters` (number), `weights` (lines about the first ones), `workers`,
    `elastic` (min, max), `threads`, `executor`, `device`, `precision`, `reduction`, `batch_size`, `micro_batches`,
    `steps_per_epoch`, `total_steps`, `start_step`, `attempt`, `command` (the words typed).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._info: dict[str, Any] = {}
        self._train: dict[str, Any] = {}
        self._activity = Activity(clock)
        self._restart(0)

    def __enter__(self) -> Self:
        super().__enter__()
        self.tell(Progress("starting"))
        return self

    def start(self, info: Record) -> None:
        """Show the header."""
        self._info = dict(info)
        self._restart(int(info.get("start_step") or 0))
        self._guard(self._begin)

    def event(self, text: str) -> None:
        """Show one line about something that happened."""
        self._guard(lambda: self._line(text))

    def resumed(self, step: int, text: str) -> None:
        """Show that the run resumes from `step`: the pace of the steps before it says nothing about those to come."""
        self._restart(step)
        self.event(text)

    def trained(self, record: Record, *, evaluation_follows: bool = False) -> None:
        """Show a record of training, or keep it for the evaluation that follows."""
        self._mark(int(record["step"]), float(record["time"]))
        self._train = dict(record)
        self._guard(lambda: self._progress(evaluation_follows))

    def evaluated(self, record: Record, metric: str = "top1") -> None:
        """Show a record of an evaluation, and what it says of the `metric` that decides."""
        self._mark(int(record["step"]), float(record["time"]))
        self._guard(lambda: self._evaluation(record, metric))

    def tell(self, now: Progress, *, waits: bool = False, ago: float = 0.0, steps: Steps | None = None) -> None:
        """Show what is going on, see `Activity.tell`, and how far the first worker is, once it trains."""
        self._activity.tell(now, waits=waits, ago=ago)
        self._guard(self._told)
        if steps is not None and steps.step >= self._pace.step:  # else a record overtook it on the way
            self._mark(steps.step, steps.time)
            self._speed.add(steps.time, steps.images, steps.waited)

    def finish(self, outcome: Ending, splits: Iterable[str] = ()) -> None:
        """Show how the run ended, its best metric, its folder, and what to type next.

        `splits` are those of its data, for a run that had nothing to train and so told nothing at its start.
        """
        self._activity.clear()
        info = {"splits": dict.fromkeys(splits), **self._info}
        self._guard(lambda: self._end(ending_lines(outcome, info)))

    @property
    def eta(self) -> float | None:
        """Seconds to the last step at the present pace, or None before it is known."""
        total, step = self._info.get("total_steps"), self._pace.step
        seconds = self._pace.seconds_per_step
        if total is None or seconds is None:
            return None
        # The step that is under way counts for as long as a step takes: what is longer is no progress.
        return max(0.0, max(0, total - step) * seconds - min(seconds, self._clock() - self._marked))

    @property
    def _step(self) -> Record:
        """The present step as a record."""
        per_epoch = self._info.get("steps_per_epoch")
        return {"step": self._pace.step, **({"epoch": self._pace.step / per_epoch} if per_epoch else {})}

    @property
    def _is_training(self) -> bool:
        """Whether the steps of a run are known and count."""
        return "total_steps" in self._info

    def _restart(self, step: int) -> None:
        self._pace, self._speed, self._marked = Pace(step), Speed(), self._clock()

    def _mark(self, step: int, time: float) -> None:
        if step != self._pace.step:
            self._marked = self._clock()
        self._pace.add(time, step)

    def _begin(self) -> None:
        for line in header_lines(self._info):
            self._line(line)

    def _told(self) -> None:
        """What is going on has changed."""

    def _end(self, lines: Sequence[str]) -> None:
        self._info.pop("total_steps", None)
        for line in lines:
            self._line(line)

    @abstractmethod
    def _line(self, text: str) -> None: ...
    @abstractmethod
    def _progress(self, evaluation_follows: bool) -> None: ...
    @abstractmethod
    def _evaluation(self, record: Record, metric: str) -> None: ...


class PlainDisplay(Display):
    """One line per evaluation, for logs and pipes, and one about what is going on after `interval` quiet seconds."""

    _ticks = 1.0

    def __init__(
        self,
        stream: IO[str],
        interval: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        self._stream = stream
        self._interval = interval
        self._last_time = clock()
        self._last_step = -1

    def _tick(self) -> None:
        if self._clock() - self._last_time < self._interval or self._closed.is_set():
            return
        if self._is_training and (self._activity.now is None or self._activity.now.phase == TRAINING):
            self._progress_line()
        elif self._activity.now is not None:
            self._line(join(place(self._step, self._info) if self._is_training else "", self._activity.text))

    def _progress(self, evaluation_follows: bool) -> None:
        # The line of an evaluation that follows tells the same numbers.
        if not evaluation_follows and self._clock() - self._last_time >= self._interval:
            self._progress_line()

    def _progress_line(self) -> None:
        stands = self._pace.step == self._last_step or self._activity.waits
        self._last_step = self._pace.step
        going = self._activity.text if stands and self._activity.now is not None else ""
        self._line(join(place(self._step, self._info), train_text(self._train), self._speed_text(), going))

    def _evaluation(self, record: Record, metric: str) -> None:
        trained = train_text(self._train) if self._train else ""
        evaluated = evaluation_text(record, metric)
        self._line(join(place(record, self._info), trained, evaluated, self._speed_text()))

    def _speed_text(self) -> str:
        return join(
            speed_text({**self._train, **self._speed.now}),
            f"ETA {clock_text(self.eta)}" if self.eta is not None else "",
        )

    def _line(self, text: str) -> None:
        self._last_time = self._clock()
        self._stream.write(text + "\n")
        self._stream.flush()


class RichDisplay(Display):
    """A live progress bar with the latest numbers under it, and what is going on; evaluations scroll by above."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._region = LiveRegion(stream, self._render)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            console=self._region.console,
        )
        self._task = self._bar.add_task("train", total=None, epoch="0", eta="-")

    def __enter__(self) -> Self:
        super().__enter__()
        self._guard(self._region.start)
        return self

    def close(self) -> None:
        super().close()
        self._region.stop()

    def abandon(self) -> None:
        self._region.abandon()

    def _told(self) -> None:
        if self._entered:
            self._region.start()  # again, where a run has ended and its evaluation follows

    def _begin(self) -> None:
        super()._begin()
        self._region.start()

    def _progress(self, evaluation_follows: bool) -> None:
        """Shown when the screen is drawn."""

    def _evaluation(self, record: Record, metric: str) -> None:
        evaluated = evaluation_text(record, metric)
        self._line(join(place(record, self._info), train_text(self._train), evaluated))

    def _end(self, lines: Sequence[str]) -> None:
        self._region.stop()
        super()._end(lines)

    def _render(self) -> Any:
        """What is on the screen now. Called from a thread: reads, and waits for nothing."""
        from rich.console import Group
        from rich.text import Text

        lines: list[Any] = []
        if self._is_training:
            self._bar.update(
                self._task,
                total=self._info.get("total_steps"),
                completed=self._pace.step,
                epoch=epoch_text(self._step, self._info),
                eta=clock_text(self.eta) if self.eta is not None else "-",
            )
            lines.append(self._bar)
            numbers = join(train_text(self._train), speed_text({**self._train, **self._speed.now}))
            lines += [Text(numbers, overflow="ellipsis", no_wrap=True)] if numbers else []
        if self._activity.now is not None:
            lines.append(self._activity.render())
        return Group(*lines)

    def _line(self, text: str) -> None:
        self._region.print(text)


def make(track: TrackConfig, stream: IO[str]) -> Display:
    """The display for `stream`: live on a terminal that can move its cursor, plain lines elsewhere."""
    if is_live(stream):
        return RichDisplay(stream)
    return PlainDisplay(stream, track.print_every.seconds or 0.0)
