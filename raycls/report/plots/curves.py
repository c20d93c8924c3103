"""`curves.svg`: train loss, and the first metric of the task in training and validation, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raycls.config.names.metrics import CLASSIFICATION, Metric
from raycls.report.plots.figures import svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["svg"]

_COLORS = {"train": "#1f77b4", "val": "#d95f02", "test": "#1b9e77"}
_NAMES = {"train": "train", "val": "validation", "test": "test"}


def svg(records: Sequence[Mapping[str, Any]], metrics: Mapping[str, Metric] = CLASSIFICATION) -> bytes:
    """The curves as an SVG file, with the first of the task's `metrics` that is not the loss, where it has another one.

    Equal records give equal bytes; one record is enough.
    """
    name = next((name for name in metrics if name != "loss"), "loss")
    train = [record for record in records if record.get("kind") == "train"]
    evaluations = [record for record in records if record.get("kind") == "evaluate"]

    def draw(figure: Figure) -> None:
        loss, metric = figure.subplots(1, 2)
        _line(loss, train, "loss", "train")
        _line(metric, train, name, "train")
        for split in ("val", "test", "train"):
            chosen = [record for record in evaluations if record.get("split") == split]
            _line(metric, chosen, name, split, marker="o", evaluated=True)
        _finish(loss, "loss")
        _finish(metric, metrics[name].title or name)

    return svg_of(draw, (9, 3.6))


def _line(
    axes: Axes,
    records: Iterable[Mapping[str, Any]],
    name: str,
    split: str,
    *,
    marker: str | None = None,
    evaluated: bool = False,
) -> None:
    points = [(record["epoch"], record[name]) for record in records if "epoch" in record and name in record]
    points = [(float(x), float(y)) for x, y in points if math.isfinite(float(x)) and math.isfinite(float(y))]
    if not points:
        return
    label = f"{_NAMES[split]} (evaluated)" if evaluated and split == "train" else _NAMES[split]
    shown = "o" if len(points) == 1 else marker  # a line of one point would be invisible
    style = "--" if evaluated and split == "train" else "-"
    axes.plot(*zip(*points, strict=True), style, color=_COLORS[split], marker=shown, markersize=4, label=label)


def _finish(axes: Axes, title: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", va="center", transform=axes.transAxes)
