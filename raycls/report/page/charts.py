"""Charts as coordinates, which the templates write as SVG: small, sharp at any size, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raycls.report.axis import Axis, axis, number
from raycls.report.series import Line, Panel, Point, thinned

__all__ = ["HEIGHT", "WIDTH", "Drawing", "Mark", "Stroke", "drawing"]

WIDTH, HEIGHT = 360, 216
"""Of a chart in the pixels of a phone, on which it is drawn 1:1; a wide page shows several beside each other."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 10, 30
_MOST_MARKS = 60
"""More points than this are a line without marks."""


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point, or a vertical line where `y` is None, with the text that a pointer over it shows."""

    x: float
    y: float | None
    text: str


@dataclass(frozen=True)
class Stroke:
    name: str
    style: str
    path: str
    """The `d` of an SVG path; empty where there is at most one point."""
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Drawing:
    key: str
    title: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    strokes: tuple[Stroke, ...]
    events: tuple[Mark, ...]
    """Vertical lines: where the run was resumed."""
    notes: tuple[str, ...]
    across_title: str = "epoch"

    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    width, height = WIDTH, HEIGHT


def drawing(panel: Panel, events: Sequence[tuple[float, str]] = ()) -> Drawing:
    """The chart of `panel`, with a vertical line at each of the `events` `(epoch, text)`."""
    points = [point for line in panel.lines for point in line.points]
    across = axis([x for x, _ in points], linear=True)
    up = axis([y for _, y in points], share=panel.share, from_zero=panel.from_zero)
    left_out = sum(line.left_out for line in panel.lines)
    notes = [f"{left_out:,} values are not finite and not drawn"] if left_out else []
    notes += ["logarithmic axis"] if up.logarithmic else []
    inside = [(x, text) for x, text in events if across.low <= x <= across.high]
    return Drawing(
        panel.key,
        panel.title,
        tuple(Tick(_x(across, tick), across.text(tick)) for tick in across.ticks),
        tuple(Tick(_y(up, tick), up.text(tick)) for tick in up.ticks),
        tuple(_stroke(line, across, up, panel) for line in panel.lines),
        tuple(Mark(_x(across, x), None, text) for x, text in inside),
        tuple(notes),
    )


def _stroke(line: Line, across: Axis, up: Axis, panel: Panel) -> Stroke:
    shown = thinned(line.points)
    places = [(_x(across, x), _y(up, y)) for x, y in shown]
    marked = len(shown) == 1 or (line.marked and len(shown) <= _MOST_MARKS)
    marks = [Mark(x, y, _told(line, point, panel)) for (x, y), point in zip(places, shown, strict=True)]
    return Stroke(line.name, line.style, _path(places), tuple(marks) if marked else ())


def _told(line: Line, point: Point, panel: Panel) -> str:
    value = f"{point[1]:.2%}" if panel.share else number(point[1])
    return f"{line.name} {value} at epoch {point[0]:.4g}"


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if len(places) > 1 else ""


def _x(across: Axis, value: float) -> float:
    return round(_LEFT + across.place(value) * (WIDTH - _LEFT - _RIGHT), 1)


def _y(up: Axis, value: float) -> float:
    place = up.place(value)
    return round(_TOP + (1 - place) * (HEIGHT - _TOP - _BOTTOM), 1) if math.isfinite(place) else float(HEIGHT)
