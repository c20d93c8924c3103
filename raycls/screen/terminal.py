"""What every display is: lines that stay, and what is going on now, on a stream that may go away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from raycls.progress import Progress, listening
from raycls.screen.activity import Activity
from raycls.screen.live import LiveRegion, is_live

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Screen"]

_TICK = 0.5


class Screen:
    """A context manager: in it, what this process says of its progress is shown; leaving it gives the terminal back.

    On a terminal that can move its cursor, what is going on stands below the lines and is drawn anew by itself;
    elsewhere it is a line of its own after `every` seconds without another. A stream that can no longer be written to
    (a closed pipe) silences the screen, and ends nothing: the files have all of it.
    Its methods may be called from any thread.
    """

    _phase = "starting"
    """What is going on before anything was said of it."""
    _delay = 0.0
    """Seconds for which a terminal shows nothing of it."""

    def __init__(self, stream: IO[str], every: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._activity = Activity(clock)
        self._region = LiveRegion(stream, self._render) if is_live(stream) else None
        self._began = self._said = clock()
        self._entered = self._muted = False
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._stack = ExitStack()

    @property
    def is_live(self) -> bool:
        """Whether what is going on is drawn anew."""
        return self._region is not None

    def tell(self, now: Progress, *, waits: bool = False, ago: float = 0.0) -> None:
        """Show what is going on, see `Activity.tell`."""
        self._activity.tell(now, waits=waits, ago=ago)
        self._guard(self._draw)

    def lines(self, *texts: str) -> None:
        """Show lines that stay."""
        self._guard(lambda: self._lines(texts))

    def tick(self) -> None:
        """Time has passed: show what is due."""
        self._guard(self._tick)

    def close(self) -> None:
        """Give the terminal back, and show nothing more of what is going on. Harmless when called twice."""
        with self._lock:
            self._closed.set()
            if self._region is not None:
                self._region.stop()

    def abandon(self) -> None:
        """Give the terminal back at once, from a signal handler of a process that is about to end."""
        if self._region is not None:
            self._region.abandon()

    def __enter__(self) -> Self:
        self._closed.clear()
        self._entered = True
        self._began = self._said = self._clock()
        self._stack.enter_context(listening(self.tell))
        if self._region is None or self._delay:
            threading.Thread(target=self._run, name="raycls-screen", daemon=True).start()
        self.tell(Progress(self._phase))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered = False
        self._closed.set()
        self._stack.close()
        self._guard(self.close)

    def _finish(self, texts: Iterable[str]) -> None:
        """Show the last lines, in place of what was going on; it comes back where something else follows."""
        self._activity.clear()
        if self._region is not None:
            self._region.stop()
        self._lines(texts)

    def _lines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._said = self._clock()
            if self._region is not None:
                self._region.print(text)
            else:
                self._stream.write(text + "\n")
                self._stream.flush()

    def _tick(self) -> None:
        if self._region is not None:
            self._draw()
        elif self._is_due and not self._closed.is_set() and (text := self._text()):
            self._lines([text])

    @property
    def _is_due(self) -> bool:
        return self._clock() - self._said >= self._every

    def _text(self) -> str:
        """What is going on, as a line; empty for none."""
        return self._activity.text

    def _render(self) -> RenderableType:
        """What is going on, for a terminal. Called from a thread: reads, and waits for nothing."""
        return self._activity.render()

    def _draw(self) -> None:
        shown = self._entered and not self._closed.is_set() and self._clock() - self._began >= self._delay
        if shown and self._region is not None:
            self._region.start()

    def _run(self) -> None:
        while not self._closed.wait(_TICK):
            self.tick()

    def _guard(self, show: Callable[[], None]) -> None:
        if self._muted:
            return
        try:
            with self._lock:
                show()
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and "closed file" not in str(error):
                raise
            self._muted = True
