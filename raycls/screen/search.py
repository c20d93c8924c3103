"""What a user sees of a search: a live table of its trials on a terminal, plain lines elsewhere.

Both kinds are fed by the driver and show what the ledger knows. A display that can no longer be written to
(a closed pipe) goes quiet; the search goes on.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, Self

from raycls.config.sections.track import TrackConfig
from raycls.progress import Progress
from raycls.screen.activity import Activity
from raycls.screen.live import LiveRegion
from raycls.screen.search_text import progress_text, rows
from raycls.screen.terminal import Screen, is_live
from raycls.search.trials import TrialLog

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PlainSearchDisplay", "RichSearchDisplay", "SearchDisplay", "make_search_display"]

_ROWS = 20


class SearchDisplay(Screen, ABC):
    """Shows one search. A context manager: leaving it gives the terminal back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._activity = Activity(clock)

    def __enter__(self) -> Self:
        super().__enter__()
        self.tell(Progress("starting"))
        return self

    def tell(self, now: Progress) -> None:
        """Show what is going on beside what the ledger knows."""
        self._activity.tell(now)

    def start(self, header_lines: Sequence[str]) -> None:
        """Show what the search is."""
        self._guard(lambda: self._begin(header_lines))

    def event(self, text: str) -> None:
        """Show one line about something that happened."""
        self._guard(lambda: self._line(text))

    def update(self, ledger: TrialLog, metric: str, mode: str) -> None:
        """Show the trials as they are now; cheap enough for every result."""
        self._guard(lambda: self._progress(ledger, metric, mode))

    def finish(self, lines: Sequence[str]) -> None:
        """Show what the search found."""
        self._guard(lambda: self._end(lines))

    def _begin(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._line(line)

    @abstractmethod
    def _progress(self, ledger: TrialLog, metric: str, mode: str) -> None: ...
    @abstractmethod
    def _line(self, text: str) -> None: ...

    def _end(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._line(line)


class PlainSearchDisplay(SearchDisplay):
    """One line per event, for logs and pipes, and one about all trials after `interval` quiet seconds."""

    _ticks = 1.0

    def __init__(self, stream: IO[str], interval: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream
        self._interval = interval
        self._last = clock()
        self._trials = ""

    def _progress(self, ledger: TrialLog, metric: str, mode: str) -> None:
        self._trials = progress_text(ledger, metric, mode)
        self._tick()

    def _tick(self) -> None:
        text = "; ".join(part for part in (self._trials, self._activity.text) if part)
        if text and self._clock() - self._last >= self._interval and not self._closed.is_set():
            self._line(text)

    def _end(self, lines: Sequence[str]) -> None:
        self._trials = ""
        self._activity.clear()
        super()._end(lines)

    def _line(self, text: str) -> None:
        self._last = self._clock()
        self._stream.write(text + "\n")
        self._stream.flush()


class RichSearchDisplay(SearchDisplay):
    """A live table with a row per trial, the running ones first; events scroll by above it."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._table: Table | None = None
        self._region = LiveRegion(stream, self._render)

    def __enter__(self) -> Self:
        super().__enter__()
        self._guard(self._region.start)
        return self

    def close(self) -> None:
        self._region.stop()

    def abandon(self) -> None:
        self._region.abandon()

    def _begin(self, lines: Sequence[str]) -> None:
        super()._begin(lines)
        self._region.start()

    def _progress(self, ledger: TrialLog, metric: str, mode: str) -> None:
        # Room for the caption and the lines around the rows: a table that is higher than the screen flickers.
        most = max(1, min(_ROWS, self._region.console.height - 7))
        self._table = _table(ledger, metric, mode, most)

    def _end(self, lines: Sequence[str]) -> None:
        self._region.stop()
        super()._end(lines)

    def _line(self, text: str) -> None:
        self._region.print(text)

    def _render(self) -> Any:
        """What is on the screen now. Called from a thread."""
        from rich.console import Group

        table, going = self._table, self._activity.render()
        return going if table is None else Group(table, going)


def _table(ledger: TrialLog, metric: str, mode: str, most: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = rows(ledger, metric, mode, most)
    hidden = len(ledger.trials) - len(shown)
    caption = progress_text(ledger, metric, mode) + (f"; {hidden} not shown" if hidden else "")
    table = Table(box=box.SIMPLE_HEAD, caption=Text(caption), caption_justify="left")
    for name in ("trial", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("epochs", metric):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in shown:
        style = "bold" if row.state == "running" else "red" if row.state == "failed" else ""
        cells = (row.trial, row.state, row.epochs, row.value, row.chosen)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def make_search_display(track: TrackConfig, stream: IO[str]) -> SearchDisplay:
    """The display for `stream`: live on a terminal that can move its cursor, plain lines elsewhere."""
    if is_live(stream):
        return RichSearchDisplay(stream)
    return PlainSearchDisplay(stream, track.print_every.seconds or 0.0)
