"""The doctor's rows: a table on a terminal, plain lines elsewhere, JSON for programs."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from raycls.doctor.cluster_rows import Row
from raycls.errors import EXIT_DONE, EXIT_FAILED
from raycls.progress import progress
from raycls.run import strict_json
from raycls.screen.working import Working

__all__ = ["exit_code", "plain_lines", "show", "to_json"]

_WIDTH = max(map(len, ("warning", "skipped", "unknown")))
_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unknown": "magenta", "skipped": "dim"}


def exit_code(rows: Iterable[Row]) -> int:
    """0 where all is well, warnings and what was not asked for included; 1 otherwise."""
    return EXIT_DONE if all(row.is_well for row in rows) else EXIT_FAILED


def show(rows: Iterable[Row], out: IO[str] | None = None) -> list[Row]:
    """Print each row as it comes, on a terminal as a table at the end; all of them are returned."""
    stream: IO[str] = sys.stdout if out is None else out
    shown: list[Row] = []
    with Working("looking at the cluster", stream, every=math.inf) as screen:
        for row in rows:
            shown.append(row)
            if screen.is_live:
                progress(f"looking further, after {row.name}: {row.verdict}")
            else:
                screen.lines(*plain_lines(row))
    if screen.is_live:
        from rich.console import Console  # here: importing rich costs plain lines nothing

        Console(file=stream).print(_table(shown))
    screen.lines(verdict(shown))
    return shown


def plain_lines(row: Row) -> list[str]:
    """The row as text: verdict, name, what was found, and the remedy on a line of its own."""
    lines = [f"{row.verdict:<{_WIDTH}}  {row.name}: {row.found}"]
    if row.fix and row.verdict not in ("ok", "skipped"):
        lines.append(f"{'':<{_WIDTH}}  fix: {row.fix}")
    return lines


def verdict(rows: Sequence[Row]) -> str:
    """The last line: how many rows are not well."""
    counts = {name: sum(row.verdict == name for row in rows) for name in ("wrong", "unknown", "warning")}
    words = [f"{count} {name}" for name, count in counts.items() if count]
    return f"{', '.join(words)} of {len(rows)} rows" if words else f"all {len(rows)} rows are well"


def to_json(rows: Sequence[Row]) -> str:
    """One line with the key `raycls_doctor`, so that it can be found among the other lines of a log."""
    return strict_json.dumps({"raycls_doctor": {"exit_code": exit_code(rows), "rows": [row.to_dict() for row in rows]}})


def _table(rows: Sequence[Row]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("", "", "found", "fix"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        style = _STYLES[row.verdict]
        fix = row.fix if row.verdict not in ("ok", "skipped") else ""
        table.add_row(Text(row.verdict, style), row.name, Text(row.found), Text(fix))
    return table
