"""Curves in a terminal: lines of braille dots, evaluations as marks. Readable without colour, and in a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from raycls.report.axis import Axis, axis
from raycls.report.series import RUN_STYLES, Line, Panel, Point

__all__ = ["draw"]

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille character, by its row and column (Unicode, block 2800)."""
_STYLES = ("train", "val", "test", *(f"run{index}" for index in range(RUN_STYLES)))
_MARKS = {True: dict(zip(_STYLES, "○●◆●○■□◆◇", strict=True)), False: dict(zip(_STYLES, "xo+ox#*+@", strict=True))}
_COLOURS = dict(zip(_STYLES, (f"\x1b[{code}m" for code in (34, 33, 32, 34, 33, 32, 35, 31, 36)), strict=True))
_PLAIN = "\x1b[0m"
_MARGIN = 9
"""Columns for what is written beside the axis."""
_APART = 8
"""Columns between the marks that tell the lines of several runs apart where there is no colour."""


def draw(panel: Panel, *, width: int, height: int, colour: bool, braille: bool) -> list[str]:
    """`panel` in lines of at most `width` columns, `height` of them with dots.

    `braille` needs a terminal with UTF-8; without it each character is one point.
    """
    lines = [line for line in panel.lines if line.points]
    left_out = sum(line.left_out for line in panel.lines)
    marks = _MARKS[braille]
    keys = [f"{marks[line.style] if _is_marked(line) else '⠒⠒' if braille else '..'} {line.name}" for line in lines]
    shown = [_coloured(key, line.style, colour) for key, line in zip(keys, lines, strict=True)]
    title = "  ".join([panel.title, *shown, *([f"({left_out} not finite, not drawn)"] if left_out else [])])
    if not lines:
        return [title]
    across = axis([x for line in lines for x, _ in line.points], linear=True)
    up = axis([y for line in lines for _, y in line.points], share=panel.share, from_zero=panel.from_zero)
    cells: dict[tuple[int, int], tuple[str, str]] = {}
    columns = max(10, width - _MARGIN - 1)
    for line in lines:
        cells.update(_cells(line, across, up, columns, height, braille))
    bar, corner, level = ("│", "└", "─") if braille else ("|", "+", "-")
    labels = {height - 1 - round(up.place(tick) * (height - 1)): up.text(tick) for tick in up.ticks}
    rows = [f"{labels.get(row, ''):>{_MARGIN - 1}} {bar}{_row(cells, row, columns, colour)}" for row in range(height)]
    first, last = across.text(across.low), across.text(across.high)
    foot = f"{first}{'epoch':^{columns - len(first) - len(last)}}{last}"
    indent = " " * _MARGIN
    return [title, *(row.rstrip() for row in rows), f"{indent}{corner}{level * columns}", f"{indent} {foot}"]


def _cells(
    line: Line, across: Axis, up: Axis, columns: int, height: int, braille: bool
) -> dict[tuple[int, int], tuple[str, str]]:
    """{(row, column): (character, style)} of one line."""
    mark = (_MARKS[braille][line.style], line.style)
    if line.marked or len(line.points) == 1:
        return {_cell(point, across, up, columns, height): mark for point in line.points}
    marks: dict[tuple[int, int], tuple[str, str]] = {}
    if _is_marked(line):
        places = {_cell(point, across, up, columns, height) for point in line.points}
        by_part = {column // _APART: (row, column) for row, column in sorted(places, key=lambda place: -place[1])}
        marks = dict.fromkeys(by_part.values(), mark)
    if not braille:
        cells = [_cell(point, across, up, columns, height) for point in line.points]
        return {**dict.fromkeys(_between(cells), (".", line.style)), **marks}
    bits: dict[tuple[int, int], int] = {}
    for row, column in _between([_cell(point, across, up, columns * 2, height * 4) for point in line.points]):
        cell = (row // 4, column // 2)
        bits[cell] = bits.get(cell, 0) | _DOTS[row % 4][column % 2]
    return {**{cell: (chr(0x2800 + value), line.style) for cell, value in bits.items()}, **marks}


def _is_marked(line: Line) -> bool:
    """Whether its key is a mark: of several runs each has one of its own."""
    return line.marked or line.style.startswith("run")


def _cell(point: Point, across: Axis, up: Axis, columns: int, rows: int) -> tuple[int, int]:
    x, y = across.place(point[0]), up.place(point[1])
    return rows - 1 - round(y * (rows - 1)), round(x * (columns - 1))


def _between(cells: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The cells of the straight lines from each one to the next."""
    for (row, column), (to_row, to_column) in pairwise(cells):
        steps = max(abs(to_row - row), abs(to_column - column), 1)
        for step in range(steps + 1):
            yield round(row + (to_row - row) * step / steps), round(column + (to_column - column) * step / steps)


def _row(cells: dict[tuple[int, int], tuple[str, str]], row: int, columns: int, colour: bool) -> str:
    found = (cells.get((row, column)) for column in range(columns))
    return "".join(" " if cell is None else _coloured(*cell, colour) for cell in found)


def _coloured(text: str, style: str, colour: bool) -> str:
    return f"{_COLOURS[style]}{text}{_PLAIN}" if colour and style in _COLOURS else text
