"""Answers on the screen: a bar per class for a few images, a line for each of many, and what could not be answered."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from raycls.quantities import plural
from raycls.screen.live import is_live

__all__ = ["answer_lines", "closing_lines", "show_answers"]

_WITH_BARS = 8
"""So many images have a table each; more have a line each."""
_BAR = 24
_LONGEST = 40

Row = Mapping[str, Any]


def show_answers(rows: Sequence[Row], out: IO[str] | None = None) -> None:
    """Print the answers: for up to eight images a table with bars each, else a line each."""
    stream: IO[str] = out or sys.stdout
    if len(rows) > _WITH_BARS or not is_live(stream):
        stream.writelines(f"{line}\n" for line in answer_lines(rows))
        return
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    for row in rows:
        console.print(_table(row))


def answer_lines(rows: Iterable[Row]) -> Iterable[str]:
    """Plain lines: the path, and the classes with their probabilities; of many images the answer alone."""
    rows = list(rows)
    few = len(rows) <= _WITH_BARS
    for row in rows:
        path = visible(row["path"])
        if row["error"] is not None:
            yield f"{path}  error: {visible(row['error'])}"
        elif few:
            yield path if "labels" not in row else f"{path}  {_labels(row)}"
            for name, value in _pairs(row):
                yield f"  {value:8.2%}  {'#' * round(value * _BAR):<{_BAR}}  {name}"
        elif "labels" in row:
            yield f"{path}  {_labels(row)}"
        else:
            yield f"{path}  {row['confidence']:.2%}  {visible(row['predicted'])}"


def closing_lines(
    rows: int,
    counts: Mapping[str, int],
    bad: int,
    first: Sequence[tuple[str, str]],
    out: str | None,
    masks: str | None = None,
) -> list[str]:
    """What was predicted, where it is, and which images have no answer."""
    lines = []
    if out is not None:
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{_short(name)} {count:,}" for name, count in common[:5])
        more = f" and {len(common) - 5} more classes" if len(common) > 5 else ""
        said = "predicted" if masks is None else f"predicted, their masks are in {masks}"
        lines.append(f"{plural(rows - bad, 'image')} {said}" + (f": {shown}{more}" if shown else ""))
    if bad:
        lines.append(f"{plural(bad, 'image')} without an answer:")
        lines += [f"  {visible(path)}: {visible(error)}" for path, error in first]
        lines += [f"  and {bad - len(first):,} more"] if bad > len(first) else []
    if out is not None:
        lines.append(f"wrote {out}")
    return lines


def _labels(row: Row) -> str:
    return ", ".join(map(visible, row["labels"])) or "no class"


def _pairs(row: Row) -> Iterable[tuple[str, float]]:
    return zip(map(visible, row["top_classes"]), row["top_probabilities"], strict=True)


def visible(text: str) -> str:
    """`text` in one line, without what a terminal would obey: names of files may hold anything."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _short(name: str) -> str:
    name = visible(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def _table(row: Row) -> Any:
    from rich.table import Table
    from rich.text import Text

    title = visible(row["path"]) + (f"  {_labels(row)}" if row.get("labels") is not None else "")
    table = Table(title=Text(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    if row["error"] is not None:
        table.add_row(Text(f"error: {visible(row['error'])}", style="red"))
        return table
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, min_width=_BAR)
    table.add_column(overflow="fold")
    for rank, (name, value) in enumerate(_pairs(row)):
        right = rank == 0 if "labels" not in row else name in map(visible, row["labels"])
        style = "green" if right else "dim"
        table.add_row(f"{value:.2%}", Text("█" * round(value * _BAR), style=style), Text(name))
    return table
