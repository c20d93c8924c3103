"""The lines at the bottom of a terminal that are drawn anew by themselves; what is printed scrolls by above them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

__all__ = ["LiveRegion", "is_live"]

_PER_SECOND = 4
_SHOW_CURSOR = b"\x1b[?25h\n"


def is_live(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


class LiveRegion:
    """`render` says what is there; it is called from a thread while the region is shown."""

    def __init__(self, stream: IO[str], render: Callable[[], RenderableType]) -> None:
        from rich.console import Console  # here: importing rich costs plain lines nothing

        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        self._render = render
        self._live: Live | None = None

    def start(self) -> None:
        """Show the region, if it is not shown."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=self.console,
                get_renderable=self._render,
                refresh_per_second=_PER_SECOND,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # what goes to a file is not for the screen
            )
            self._live.start(refresh=True)
            # Whatever ends this process, at whatever moment, finds nothing to give back.
            self.console.show_cursor(True)

    def stop(self) -> None:
        """Take the region away, if it is shown."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def refresh(self) -> None:
        """Draw the region now, where it is shown."""
        if self._live is not None:
            self._live.refresh()

    def print(self, text: str) -> None:
        """A line above the region."""
        self.console.print(text, markup=False)

    def abandon(self) -> None:
        """Past rich and past the stream, from a signal handler: whoever was interrupted may hold their locks."""
        with suppress(OSError, ValueError):
            os.write(self.console.file.fileno(), _SHOW_CURSOR)
