"""What a user sees of a run: a progress display on a terminal, plain lines elsewhere.

Both kinds are fed by the driver with the records of `history.jsonl`, so the screen never knows more than
the run folder. A display that can no longer be written to (a closed pipe) goes quiet; the run goes on.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Any

from raycls.config.schema import TrackConfig
from raycls.launch.screen import Screen, is_live, show_cursor
from raycls.launch.wording import (
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

__all__ = ["Display", "PlainDisplay", "RichDisplay", "make"]

# A run of five epochs stays below 40 lines whatever its length: at most four progress lines between two
# evaluations that are one epoch apart, and at most nineteen in a run of one epoch.
_PARTS_OF_EPOCH = 5
_PARTS_OF_RUN = 20
_RATE_WINDOW = 30


class Display(Screen, ABC):
    """Shows one run. A context manager: leaving it gives the terminal back.

    `start` takes what is known of the run before its first step; every key may be absent: `folder`,
    `source`, `classes` (number), `splits` ({name: samples}), `model`, `parameters` (number), `workers`,
    `threads`, `executor`, `device`, `precision`, `reduction`, `batch_size`, `micro_batches`,
    `steps_per_epoch`, `total_steps`, `start_step`, `attempt`, `command` (the words typed).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._info: dict[str, Any] = {}
        self._train: dict[str, Any] = {}
        self._pace = Pace()
        super().__init__()

    def start(self, info: Record) -> None:
        """Show the header."""
        self._info = dict(info)
        self._pace = Pace(int(info.get("start_step") or 0))
        self._guard(self._begin)

    def record(self, record: Record) -> None:
        """Show a history record, or `{"kind": "event", "text": ...}`, or part of it."""
        kind = record.get("kind")
        if kind == "event":
            self._guard(lambda: self._event(str(record.get("text", ""))))
            return
        if "step" in record:
            self._pace.add(float(record.get("time", self._clock())), int(record["step"]))
        if kind == "train":
            self._train = dict(record)
            self._guard(self._progress)
        elif kind == "evaluate":
            self._guard(lambda: self._evaluation(record))

    def finish(self, outcome: Ending) -> None:
        """Show how the run ended, its best metric, its folder, and what to type next."""
        self._guard(lambda: self._end(ending_lines(outcome, self._info)))

    @property
    def eta(self) -> float | None:
        """Seconds to the last step at the present pace, or None before it is known."""
        total, step = self._info.get("total_steps"), self._pace.step
        seconds = self._pace.seconds_per_step
        return None if total is None or seconds is None else max(0, total - step) * seconds

    @abstractmethod
    def _begin(self) -> None: ...
    @abstractmethod
    def _event(self, text: str) -> None: ...
    @abstractmethod
    def _progress(self) -> None: ...
    @abstractmethod
    def _evaluation(self, record: Record) -> None: ...
    @abstractmethod
    def _end(self, lines: Sequence[str]) -> None: ...


class PlainDisplay(Display):
    """One line per evaluation, few in between, for logs and pipes.

    Two lines are at least `interval` seconds apart, evaluations and events excepted.
    """

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
        self._last_step = 0

    def _begin(self) -> None:
        self._last_step = int(self._info.get("start_step") or 0)
        for line in header_lines(self._info):
            self._line(line)

    def _event(self, text: str) -> None:
        self._line(text)

    def _progress(self) -> None:
        step = int(self._train.get("step", 0))
        if self._clock() - self._last_time < self._interval or step - self._last_step < self._gap():
            return
        if self._train.get("evaluation_follows"):
            return  # the line of the evaluation tells the same numbers
        self._mark(step)
        self._line(join(place(self._train, self._info), train_text(self._train), self._speed()))

    def _evaluation(self, record: Record) -> None:
        step = int(record.get("step", 0))
        self._mark(step)
        trained = train_text(self._train) if self._train else ""
        self._line(
            join(
                place(record, self._info),
                trained,
                evaluation_text(record),
                self._speed(),
            )
        )

    def _end(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._line(line)

    def _gap(self) -> int:
        total = self._info.get("total_steps") or 1
        epoch = self._info.get("steps_per_epoch") or total
        return epoch // _PARTS_OF_EPOCH + 1 if epoch < total else total // _PARTS_OF_RUN + 1

    def _speed(self) -> str:
        return join(
            speed_text(self._train),
            f"ETA {clock_text(self.eta)}" if self.eta is not None else "",
        )

    def _mark(self, step: int) -> None:
        self._last_time, self._last_step = self._clock(), step

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class RichDisplay(Display):
    """A live progress bar with the latest numbers under it; evaluations scroll by above it."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        from rich.console import (
            Console,
            Group,
        )  # here: importing rich costs a plain run nothing
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.text import Text

        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._progress_bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            console=self._console,
        )
        self._task = self._progress_bar.add_task("train", total=None, epoch="0", eta="-")
        self._numbers = Text("starting", overflow="ellipsis", no_wrap=True)
        self._live = Live(
            Group(self._progress_bar, self._numbers),
            console=self._console,
            transient=True,
        )

    def close(self) -> None:
        self._live.stop()

    def abandon(self) -> None:
        show_cursor(self._console.file)

    def _begin(self) -> None:
        for line in header_lines(self._info):
            self._print(line)
        self._progress_bar.update(
            self._task,
            total=self._info.get("total_steps"),
            completed=int(self._info.get("start_step") or 0),
        )
        self._live.start()

    def _event(self, text: str) -> None:
        self._print(text)

    def _progress(self) -> None:
        self._update(self._train)
        self._numbers.plain = join(train_text(self._train), speed_text(self._train))

    def _evaluation(self, record: Record) -> None:
        self._update(record)
        self._print(
            join(
                place(record, self._info),
                train_text(self._train),
                evaluation_text(record),
            )
        )

    def _end(self, lines: Sequence[str]) -> None:
        self._live.stop()
        for line in lines:
            self._print(line)

    def _update(self, record: Record) -> None:
        self._progress_bar.update(
            self._task,
            completed=int(record.get("step", 0)),
            epoch=epoch_text(record, self._info),
            eta=clock_text(self.eta) if self.eta is not None else "-",
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


class Pace:
    """The seconds per step over the last records. The start of the processes is not in it."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self._marks: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def add(self, now: float, step: int) -> None:
        """`step` steps were done at the time `now`, in seconds of any clock."""
        if step < self.step:  # another attempt went back to a checkpoint
            self._marks.clear()
        self.step = step
        if not self._marks or step > self._marks[-1][1]:
            self._marks.append((now, step))

    @property
    def seconds_per_step(self) -> float | None:
        """None before two records."""
        if len(self._marks) < 2:
            return None
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start)


def make(track: TrackConfig, stream: IO[str]) -> Display:
    """The display for `stream`: live on a terminal that can move its cursor, plain lines elsewhere."""
    if is_live(stream):
        return RichDisplay(stream)
    return PlainDisplay(stream, track.print_every.seconds or 0.0)
