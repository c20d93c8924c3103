"""What is going on now, as a line that moves: told in steps of any length, read whenever a screen is drawn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from raycls.progress import TRAINING, Progress
from raycls.quantities import bytes_text
from raycls.screen.run_text import clock_text

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Activity", "Pace", "Speed"]

_SOON = 2.0
"""Seconds after which it is said how long something takes: before, its numbers move by themselves."""
_WINDOW = 30
_SPEED_SECONDS = 10.0
_SPIN = "|/-\\"
_TURNS = 4.0


class Activity:
    """The present phase: how far it is, how fast, and for how long nothing was heard of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now: Progress | None = None
        self.waits = False
        """Whether the training or evaluation of `now` waits for data."""
        self._began = self._moved = clock()
        self._first = 0

    def tell(self, progress: Progress, *, waits: bool = False, ago: float = 0.0) -> None:
        """`progress` is so since `ago` seconds. A phase begins when it is told for the first time."""
        if progress == self.now and waits == self.waits:
            return
        moved = self._clock() - max(0.0, ago)
        if self.now is None or progress.phase != self.now.phase or (progress.done or 0) < (self.now.done or 0):
            self._began, self._first = moved, progress.done or 0
        self.now, self.waits, self._moved = progress, waits, moved

    def clear(self) -> None:
        """Nothing is going on any more."""
        self.now = None

    @property
    def quiet(self) -> float:
        """Seconds since the last movement."""
        return max(0.0, self._clock() - self._moved)

    @property
    def text(self) -> str:
        """The line: `evaluating: 120/500 images (24%), 45 images/s, 0:00:08 left`; empty where nothing is going on."""
        now = self.now
        if now is None:
            return ""
        if self.waits:
            return f"waiting for data for {_seconds_text(self.quiet)}"
        if now.phase == TRAINING:
            step = f"step {(now.done or 0) + 1}"
            return f"{step} for {_seconds_text(self.quiet)}" if self.quiet >= _SOON else step
        lasted = self._clock() - self._began
        if now.done is None:
            return f"{now.phase} for {_seconds_text(lasted)}" if lasted >= _SOON else now.phase
        words = [_count_text(now.done, now.total, now.unit)]
        moving = self._moved - self._began
        rate = (now.done - self._first) / moving if now.total and moving >= 1.0 else 0.0
        if rate:
            words.append(_rate_text(rate, now.unit))
            left = ((now.total or now.done) - now.done) / rate - self.quiet
            words += [f"{clock_text(left)} left"] if left > 0 else []
            words += [f"last news {_seconds_text(self.quiet)} ago"] if self.quiet >= _SOON else []
        elif lasted >= _SOON:
            words.append(f"for {_seconds_text(lasted)}")
        return f"{now.phase}: {', '.join(words)}"

    def render(self) -> Text:
        """The line for a terminal, behind a character that turns."""
        from rich.text import Text

        turning = _SPIN[int(self._clock() * _TURNS) % len(_SPIN)]
        return Text(f"{turning} {self.text}" if self.now else "", overflow="fold")


class Pace:
    """The seconds per step over the later half of this start. The start of the processes is not in it."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self._marks: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._first = 0.0

    def add(self, now: float, step: int) -> None:
        """`step` steps were done at the time `now`, in seconds of any clock."""
        if step < self.step:  # another attempt went back to a checkpoint
            self._marks.clear()
        self.step = step
        if not self._marks:
            self._first = now
        elif step <= self._marks[-1][1]:
            return
        elif len(self._marks) > 1 and now - self._marks[-2][0] < (now - self._first) / (2 * _WINDOW):
            self._marks.pop()  # too close to be worth a mark: the newest one moves
        self._marks.append((now, step))

    @property
    def seconds_per_step(self) -> float | None:
        """None before two records."""
        if len(self._marks) < 2:
            return None
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start)


class Speed:
    """Images per second, and the share of the time that was spent waiting for data, over the last seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, float]] = deque()

    def add(self, now: float, images: int, waited: float) -> None:
        """`images` were trained, and `waited` seconds spent, by the time `now`: both from the start of the group."""
        if self._marks and (images < self._marks[-1][1] or now < self._marks[-1][0]):
            self._marks.clear()  # another group of workers
        if self._marks and images == self._marks[-1][1]:
            return
        self._marks.append((now, images, waited))
        while len(self._marks) > 2 and self._marks[1][0] <= now - _SPEED_SECONDS:
            self._marks.popleft()

    @property
    def now(self) -> dict[str, float]:
        """As a record of the history has it, see `wording.speed_text`; empty before two marks."""
        if len(self._marks) < 2:
            return {}
        (first, images, waited), (last, trained, spent) = self._marks[0], self._marks[-1]
        seconds = max(1e-9, last - first)
        return {"images_per_second": (trained - images) / seconds, "data_wait": min(1.0, (spent - waited) / seconds)}


def _count_text(done: int, total: int | None, unit: str) -> str:
    if unit == "bytes":
        return bytes_text(done) + (f" of {bytes_text(total)} ({done / total:.0%})" if total else "")
    return f"{done:,}/{total:,} {unit} ({done / total:.0%})" if total else f"{done:,} {unit}"


def _rate_text(rate: float, unit: str) -> str:
    return f"{bytes_text(rate)}/s" if unit == "bytes" else f"{rate:.3g} {unit}/s"


def _seconds_text(seconds: float) -> str:
    return f"{int(seconds)} s" if seconds < 60 else clock_text(int(seconds))
