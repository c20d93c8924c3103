"""What a user sees of a search, as its ledger has it: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from raycls.screen.search_text import progress_text, rows
from raycls.screen.terminal import Screen
from raycls.search.trials import TrialLog

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["SearchDisplay"]

_ROWS = 20


class SearchDisplay(Screen):
    """Shows one search."""

    def __init__(self, stream: IO[str], every: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, every, clock)
        self._trials = ""
        self._table: Table | None = None

    def start(self, header_lines: Sequence[str]) -> None:
        """Show what the search is."""
        self.lines(*header_lines)

    def event(self, text: str) -> None:
        """Show one line about something that happened."""
        self.lines(text)

    def update(self, ledger: TrialLog, metric: str, mode: str) -> None:
        """Show the trials as they are now; cheap enough for every result."""
        if self._region is None:
            self._trials = progress_text(ledger, metric, mode)
            self.tick()
        else:
            # Room for the caption and the lines around the rows: a table that is higher than the screen flickers.
            most = max(1, min(_ROWS, self._region.console.height - 7))
            self._table = _table(ledger, metric, mode, most)

    def finish(self, lines: Sequence[str]) -> None:
        """Show what the search found."""
        self._trials, self._table = "", None
        self._guard(lambda: self._finish(lines))

    def _text(self) -> str:
        return "; ".join(part for part in (self._trials, self._activity.text) if part)

    def _render(self) -> RenderableType:
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
