"""Plots as SVG files, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["svg_of"]

# Without a fixed salt the ids in the file, without text as text its size, would differ from run to run.
_STYLE: dict[Any, Any] = {"svg.hashsalt": "raycls", "svg.fonttype": "none"}


def svg_of(draw: Callable[[Figure], None], size: tuple[float, float]) -> bytes:
    """What `draw` draws, as an SVG file of `size` (width and height in inches); equal drawings give equal bytes."""
    # Imported here: workers and drivers import who draws when they start, and draw only at their end.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
