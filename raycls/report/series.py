"""The curves of a run as numbers: which lines there are, of which points. Drawn on a page, live, and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raycls.config.names.metrics import METRICS, Metric

__all__ = ["RUN_STYLES", "Line", "Panel", "panels", "thinned", "together"]

Record = Mapping[str, Any]
Point = tuple[float, float]

_NAMES = {"train": "train", "val": "validation", "test": "test"}
_MOST_POINTS = 400
"""Of a line. A chart is some 300 pixels wide, and a page of long runs would grow without bound."""
RUN_STYLES = 6
"""How many runs of one chart are told apart by their style; a seventh has that of the first."""
_BESIDE = (
    ("images_per_second", "images per second", False, True),
    ("data_wait", "time spent waiting for data", True, True),
    ("lr", "learning rate", False, False),
    ("grad_norm", "gradient norm", False, False),
)
"""Numbers of a training record, how a chart calls each, whether it is a share, and whether its axis begins at 0."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    style: str
    """`train`, `val` or `test`; `run0`, `run1` and so on where several runs share a chart."""
    points: tuple[Point, ...]
    """(epoch, value), all finite, in the order of the epochs."""
    marked: bool = False
    """Whether each point is a measurement of its own rather than a mean since the point before."""
    left_out: int = 0
    """Values that were not finite."""


@dataclass(frozen=True)
class Panel:
    """One chart: its lines share both axes."""

    key: str
    title: str
    lines: tuple[Line, ...]
    share: bool = False
    """Whether the values are parts of a whole, in 0..1."""
    from_zero: bool = False
    """Whether the axis begins at 0: a speed that varies by a percent is a steady one."""


def panels(records: Sequence[Record], task: str, metric: str) -> list[Panel]:
    """The charts of a run's `records`, as `history.read` gives them: loss, what is measured, speed and the rest.

    `task` is the name of its task, `metric` the one that decides. A chart without any value is left out.
    """
    train = [record for record in records if record.get("kind") == "train"]
    evaluations = [record for record in records if record.get("kind") == "evaluate"]
    found: list[Panel] = []
    for name, about in measured(evaluations, task, metric).items():
        lines = [_line(train, name, "train")]
        for split in ("val", "test", "train"):
            chosen = [record for record in evaluations if record.get("split") == split]
            lines.append(_line(chosen, name, split, marked=True))
        found.append(Panel(name, about.title or name, tuple(lines), about.share))
    found += [Panel(name, title, (_line(train, name, "train"),), *kind) for name, title, *kind in _BESIDE]
    shown = (replace(item, lines=_filled(item.lines)) for item in found)
    return [panel for panel in shown if panel.lines]


def together(runs: Sequence[tuple[str, Sequence[Panel]]]) -> list[Panel]:
    """Charts that several runs `(name, panels)` share.

    Of each run a chart has its evaluations, or its training where it has no others. Styles are `run0`, `run1` ...
    """
    found: dict[str, Panel] = {}
    lines: dict[str, list[Line]] = {}
    for index, (name, own) in enumerate(runs):
        for panel in own:
            shown = [line for line in panel.lines if line.marked] or list(panel.lines)
            found.setdefault(panel.key, panel)
            style = f"run{index % RUN_STYLES}"
            lines.setdefault(panel.key, []).append(replace(shown[0], name=name, style=style))
    return [replace(panel, lines=tuple(_told(lines[key]))) for key, panel in found.items()]


def _told(lines: Sequence[Line]) -> Iterator[Line]:
    """The lines; beside evaluations, one that is of the training says so."""
    marked = any(line.marked for line in lines)
    return (line if line.marked or not marked else replace(line, name=f"{line.name} (train)") for line in lines)


def measured(evaluations: Sequence[Record], task: str, metric: str) -> dict[str, Metric]:
    """The metrics that charts show: the loss, the first one of the task, and the one that decides.

    Those of a task of the user are the numbers of its evaluations: what is known of them is in its class alone.
    """
    known = METRICS.get(task)
    if known is None:
        beside = ("step", "epoch", "count", "time", "elapsed", "attempt", "best")
        names = {name: None for record in evaluations for name in record if name not in beside}
        known = {
            name: Metric("max")
            for name in names
            if any(isinstance(record.get(name), int | float) for record in evaluations)
        }
    first = next((name for name in known if name != "loss"), "loss")
    return {name: known.get(name, Metric("min")) for name in dict.fromkeys(("loss", first, metric))}


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` of the points: of each part of them the lowest and the highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    kept: set[int] = {0, len(points) - 1}
    parts = (most - 2) // 2
    for part in range(parts):
        rows = range(part * len(points) // parts, (part + 1) * len(points) // parts)
        kept |= {min(rows, key=lambda row: points[row][1]), max(rows, key=lambda row: points[row][1])}
    return [points[row] for row in sorted(kept)]


def _line(records: Iterable[Record], name: str, split: str, *, marked: bool = False) -> Line:
    values = [(record["epoch"], record[name]) for record in records if "epoch" in record and name in record]
    pairs = [(float(x), float(y)) for x, y in values]
    finite = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
    label = "train (evaluated)" if marked and split == "train" else _NAMES[split]
    return Line(label, split, tuple(finite), marked, len(pairs) - len(finite))


def _filled(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(line for line in lines if line.points or line.left_out)
