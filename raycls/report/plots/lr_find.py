"""The plot of `raycls lr-find`: the loss over the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raycls.report.plots.figures import svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["svg"]


def svg(rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], suggested: float | None) -> bytes:
    """An SVG file: the loss of each step and its mean over a logarithmic rate, and a line at the `suggested` one."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(rates, losses, ".", color="#bbbbbb", markersize=4, label="of a step")
        axes.plot(rates, smooth, color="#1f77b4", label="smoothed")
        if suggested is not None:
            axes.axvline(suggested, color="#d95f02", linestyle="--", label=f"suggested: {suggested:.2g}")
        axes.set_xscale("log")
        low, high = min(smooth), max(smooth[: max(1, len(smooth) // 2)])
        axes.set_ylim(low - 0.2 * (high - low + 1e-9), high + 0.6 * (high - low + 1e-9))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.3)
        axes.legend()

    return svg_of(draw, (7, 4.5))
