"""The page that follows a run: empty at first, and what is put into it each time the run has moved."""

from __future__ import annotations

import math
from typing import Any

from raycls.report.axis import number
from raycls.report.page.charts import drawing
from raycls.report.page.render import fragment, render
from raycls.report.page.report import about
from raycls.report.page.running import clock, moment, resumed
from raycls.report.runs import Told

__all__ = ["live_page", "live_state"]


def live_page(told: Told) -> bytes:
    """The page, which asks the server that it came from for everything else."""
    return render(
        "live.html",
        script="live.js",
        connects=True,
        title=f"{told.name}: live",
        made=f"follows {told.folder.store.describe()}",
        told=told,
        about=about(told),
    )


def live_state(told: Told, error: str) -> tuple[str, str]:
    """(HTML, title of the window) of the run as it is now; `error` says why the newest records could not be read."""
    total = told.plan.get("total_steps") or 0
    step = max((record["step"] for record in told.records if isinstance(record.get("step"), int)), default=0)
    last = max((record["time"] for record in told.records if isinstance(record.get("time"), float)), default=None)
    html = fragment(
        "live_state.html",
        told=told,
        state=told.state if told.result else "training" if told.records else "no record yet",
        error=error,
        part=100 * step / total if total else 0.0,
        progress=f"step {step:,} of {total:,}" if total else f"step {step:,}",
        left="" if told.result else _left(told, step, total),
        last=moment(last) if last else "",
        tiles=_tiles(told),
        drawings=[drawing(panel, resumed(told)) for panel in told.panels],
    )
    return html, f"{100 * step / total:.0f} % {told.name}" if total else told.name


def _tiles(told: Told) -> list[tuple[str, str]]:
    """The newest value of each chart, by the split that it is of."""
    tiles: list[tuple[str, str]] = []
    for panel in told.panels:
        for line in panel.lines:
            if line.points and panel.key not in ("lr", "grad_norm"):
                value = line.points[-1][1]
                text = f"{100 * value:.1f} %" if panel.share else number(value)
                beside = f" ({line.name})" if len(panel.lines) > 1 else ""
                tiles.append((f"{panel.title}{beside}", text))
    return tiles


def _left(told: Told, step: int, total: int) -> str:
    """About how long the rest takes, at the pace of this attempt; empty where nothing is known yet."""
    start = told.starts[-1].attempt if told.starts else None
    times: list[Any] = [record.get("time") for record in told.records if record.get("step") == step]
    if start is None or not times or step <= start.step or not total:
        return ""
    seconds = (float(times[-1]) - start.time) / (step - start.step) * (total - step)
    return f"about {clock(seconds)} left" if math.isfinite(seconds) and seconds > 0 else ""
