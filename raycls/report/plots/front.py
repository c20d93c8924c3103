"""A plot of what the networks of a search cost and how good they are, with those that no other one dominates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raycls.report.plots.figures import svg_of
from raycls.search.front import Priced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FRONT", "front_plot"]

FRONT = "front.svg"

_COLORS = {"finished": "#1f77b4", "stopped": "#999999"}
_LOG_RATIO = 10.0
"""Costs that differ by more than this factor are drawn on a logarithmic axis."""
_NAMED = 20
"""Up to so many trials of the front are named."""


def front_plot(points: Sequence[Priced], front: Sequence[Priced], metric: str, limit: int | None) -> bytes:
    """An SVG of `metric` over the operations of all `points`, and a line through the `front`, the cheapest first.

    Between two points of the front the line is level: what the cheaper one reaches can be had for any budget up to the
    next. `limit`, where there is one, is the most operations that were allowed.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for state in dict.fromkeys(point.trial.state for point in points):
            found = [point for point in points if point.trial.state == state]
            style: dict[str, Any] = {"s": 18, "color": _COLORS.get(state, "#000000"), "alpha": 0.8, "label": state}
            axes.scatter([point.flops for point in found], [point.value for point in found], **style)
        across, up = [point.flops for point in front], [point.value for point in front]
        axes.step(across, up, where="post", color="#d95f02", marker="o", markersize=4, label="front", gid="front")
        names: dict[tuple[int, float], list[str]] = {}
        for point in front[:_NAMED]:
            names.setdefault((point.flops, point.value), []).append(point.trial.id)
        for place, equal in names.items():
            axes.annotate(", ".join(equal), place, (3, 4), textcoords="offset points", fontsize=7)
        if limit is not None:
            axes.axvline(limit, color="#555555", linestyle=":", linewidth=1, label="search.max_flops", gid="limit")
        costs = [point.flops for point in points]
        if min(costs) > 0 and max(costs) > _LOG_RATIO * min(costs):
            axes.set_xscale("log")
        axes.set_xlabel("FLOPs per image, forward (2 x multiply-adds)")
        axes.set_ylabel(f"validation {metric}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)

    return svg_of(draw, (7, 4.5))
