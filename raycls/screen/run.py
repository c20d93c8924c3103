"""What a user sees of a run: a progress bar on a terminal, plain lines elsewhere, and in both what was evaluated.

The driver feeds it with the records of `history.jsonl`, and between them with how far the work is
(`raycls.progress`, from this process and from the first worker), so that nothing stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

from raycls.progress import TRAINING, Progress, Steps
from raycls.screen.activity import Pace, Speed
from raycls.screen.run_text import (
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
from raycls.screen.terminal import Screen

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress as Bar

    from raycls.run.outcome import Outcome

__all__ = ["Display"]


class Display(Screen):
    """Shows one run.

    `start` takes what is known of the run before its first step; every key may be absent: `folder`,
    `source`, `classes` (number), `splits` ({name: samples}), `cut_from_train` (whether val is), `overfit`
    (whether all splits are the same samples), `measured` and `metrics` (those of the task), `model`,
    `parameters` (number), `weights` (lines about the first ones), `workers`,
    `elastic` (min, max), `threads`, `executor`, `ahead` (whether a thread reads ahead), `device`, `precision`,
    `reduction`, `batch_size`, `micro_batches`,
    `steps_per_epoch`, `total_steps`, `start_step`, `attempt`, `command` (the words typed).
    """

    def __init__(self, stream: IO[str], every: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, every, clock)
        self._info: dict[str, Any] = {}
        self._train: dict[str, Any] = {}
        self._last_step = -1
        self._bar = None if self._region is None else _bar(self._region.console)
        self._restart(0)

    def start(self, info: Record) -> None:
        """Show the header."""
        self._info = dict(info)
        self._restart(int(info.get("start_step") or 0))
        self.lines(*header_lines(self._info))

    def event(self, text: str) -> None:
        """Show one line about something that happened."""
        self.lines(text)

    def resumed(self, step: int, text: str) -> None:
        """Show that the run resumes from `step`: the pace of the steps before it says nothing about those to come."""
        self._restart(step)
        self.lines(text)

    def trained(self, record: Record, *, evaluation_follows: bool = False) -> None:
        """Show a record of training, or keep it for the evaluation that follows."""
        self._mark(int(record["step"]), float(record["time"]))
        self._train = dict(record)
        # The line of an evaluation that follows tells the same numbers.
        if not self.is_live and not evaluation_follows:
            self._guard(self._training_line)

    def evaluated(self, record: Record, metric: str = "") -> None:
        """Show a record of an evaluation, and what it says of the `metric` that decides."""
        self._mark(int(record["step"]), float(record["time"]))
        trained = train_text(self._train, self._info) if self._train else ""
        speed = "" if self.is_live else self._speed_text()  # a terminal shows it below
        self.lines(join(place(record, self._info), trained, evaluation_text(record, metric, self._info), speed))

    def tell(self, now: Progress, *, waits: bool = False, ago: float = 0.0, steps: Steps | None = None) -> None:
        """Show what is going on, see `Activity.tell`, and how far the first worker is, once it trains."""
        super().tell(now, waits=waits, ago=ago)
        if steps is not None and steps.step >= self._pace.step:  # else a record overtook it on the way
            self._mark(steps.step, steps.time)
            self._speed.add(steps.time, steps.images, steps.waited)

    def finish(self, outcome: Outcome, splits: Iterable[str] = (), *, overfit: bool = False) -> None:
        """Show how the run ended, its best metric, its folder, and what to type next.

        `splits` are those of its data, and `overfit` is as in `start`, for a run that had nothing to train and so told
        nothing at its start.
        """
        info = {"splits": dict.fromkeys(splits), "overfit": overfit, **self._info}

        def show() -> None:
            self._info.pop("total_steps", None)  # what follows is no training
            self._finish(ending_lines(outcome, info))

        self._guard(show)

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

    def _training_line(self) -> None:
        if self._is_due:
            self._lines([self._training_text()])

    def _training_text(self) -> str:
        stands = self._pace.step == self._last_step or self._activity.waits
        self._last_step = self._pace.step
        going = self._activity.text if stands else ""
        return join(place(self._step, self._info), train_text(self._train, self._info), self._speed_text(), going)

    def _speed_text(self) -> str:
        eta = f"ETA {clock_text(self.eta)}" if self.eta is not None else ""
        return join(speed_text({**self._train, **self._speed.now}), eta)

    def _text(self) -> str:
        now = self._activity.now
        if self._is_training and (now is None or now.phase == TRAINING):
            return self._training_text()
        where = place(self._step, self._info) if self._is_training and now is not None else ""
        return join(where, self._activity.text)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines: list[RenderableType] = []
        if self._is_training and self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                total=self._info.get("total_steps"),
                completed=self._pace.step,
                epoch=epoch_text(self._step, self._info),
                eta=clock_text(self.eta),
            )
            lines.append(self._bar)
            numbers = join(train_text(self._train, self._info), speed_text({**self._train, **self._speed.now}))
            lines += [Text(numbers, overflow="ellipsis", no_wrap=True)] if numbers else []
        if self._activity.now is not None:
            lines.append(self._activity.render())
        return Group(*lines)


def _bar(console: Console) -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("ETA {task.fields[eta]}"),
        console=console,
    )
    bar.add_task("train", total=None, epoch="0", eta="-")
    return bar
