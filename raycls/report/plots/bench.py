"""`bench/model.svg`: latency and accuracy of a network computed in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raycls.report.plots.figures import svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["svg"]

_COLORS = ("#1f77b4", "#1b9e77", "#d95f02", "#7570b3")


def svg(facts: Mapping[str, Any]) -> bytes:
    """`facts` of `raycls bench model` as an SVG file: a panel per batch, a bar per way.

    Equal facts give equal bytes.
    """
    rows = facts["rows"]
    batches = list(rows[0]["batches"])
    metric = facts.get("metric", "top1")
    score = "top-1" if metric == "top1" else metric
    names = [f"{row['name']}\n{score} {row[metric]:.4f}" for row in rows]
    where = range(len(rows))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
        for place, (axes, batch) in enumerate(zip(panels, batches, strict=True)):
            found = [row["batches"][batch] for row in rows]
            axes.barh(where, [1e3 * each["p50"] for each in found], color=_COLORS[: len(rows)])
            for bar, each in zip(where, found, strict=True):
                text = f"{1e3 * each['p50']:.3g} ms, p99 {1e3 * each['p99']:.3g}"
                end = (1e3 * each["p50"], bar)
                axes.annotate(text, end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
            axes.set_xlim(0, 1.7e3 * max(each["p50"] for each in found))  # room for the texts
            axes.set_title("1 image at a time" if batch == "1" else f"{batch} images at a time", fontsize=10)
            axes.set_xlabel("median, ms")
            axes.grid(axis="x", alpha=0.3)
            if place == 0:
                axes.set_yticks(list(where), names)
                axes.invert_yaxis()

    return svg_of(draw, (9, 1.3 + 0.55 * len(rows)))
