"""Plots of a search: the curves of all trials with the rungs, parallel coordinates, parameter importance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raycls.config.sections.search import decisive
from raycls.config.write import flow
from raycls.report.plots.figures import svg_of
from raycls.report.plots.importance import Importance, comparable, importances
from raycls.search.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CURVES", "IMPORTANCE", "PARALLEL", "curves", "importance", "parallel", "plots"]

CURVES, PARALLEL, IMPORTANCE = "curves.svg", "parallel.svg", "importance.svg"

_COLORS = {"finished": "#1f77b4", "stopped": "#999999", "running": "#1b9e77", "failed": "#d95f02"}
_LOG_RATIO = 50.0
"""Positive numbers that differ by more than this factor are drawn on a logarithmic axis."""
_INACTIVE = -0.12
"""Where a path that was inactive is drawn, below the axis from 0 to 1."""


def plots(
    trials: Sequence[Trial], paths: Sequence[str], metric: str, mode: str, *, rungs: Sequence[float] = ()
) -> tuple[dict[str, bytes], list[str]]:
    """({file name: SVG}, [a line about each plot that is left out]) of the trials of a search.

    `rungs` are the milestones of its scheduler in epochs.
    """
    searched = [trial for trial in trials if trial.phase == "search"]
    drawn = {CURVES: curves(searched, rungs, metric), PARALLEL: parallel(searched, paths, metric, mode)}
    found, why = importances(searched, paths, metric)
    if not found:
        return drawn, [f"{IMPORTANCE} is left out: {why}"]
    epoch, pairs = comparable(searched, metric)
    return {**drawn, IMPORTANCE: importance(found, f"{metric} at epoch {epoch:g}, {len(pairs)} trials")}, []


def curves(trials: Iterable[Trial], rungs: Sequence[float], metric: str) -> bytes:
    """An SVG of `metric` over the epochs, a line per trial, a cross where one was stopped.

    Dotted lines are the milestones `rungs` in epochs, dashes the cutoffs that the scheduler compared with.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for milestone in rungs:
            axes.axvline(milestone, color="#555555", linestyle=":", linewidth=1, gid=f"rung-{milestone:g}")
        states: set[str] = set()
        for trial in trials:
            label = trial.state if trial.state not in states else "_"
            if _curve(axes, trial, metric, label):
                states.add(trial.state)
            cutoffs = [(item.epoch, item.cutoff) for item in trial.results if item.cutoff is not None]
            cutoffs = [(epoch, cutoff) for epoch, cutoff in cutoffs if math.isfinite(cutoff)]
            if cutoffs:
                axes.plot(*zip(*cutoffs, strict=True), "_", color="#000000", markersize=8, gid=f"cutoff-{trial.id}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {metric}")
        axes.grid(alpha=0.3)
        if states:
            axes.legend(frameon=False)
        else:
            _say(axes, "nothing was measured")

    return svg_of(draw, (9, 4.5))


def parallel(trials: Iterable[Trial], paths: Sequence[str], metric: str, mode: str) -> bytes:
    """An SVG with an axis per path and one for `metric`; a line per trial that has a value, the best drawn last.

    Each axis goes from the lowest to the highest value that occurred, logarithmically over wide ranges.
    """
    pairs = [(trial, value) for trial in trials if (value := trial.value(metric, mode)) is not None]
    pairs.sort(key=lambda pair: pair[1], reverse=mode == "min")
    goals = [value for _, value in pairs]
    scales = [_axis(path, [trial.chosen.get(path, _MISSING) for trial, _ in pairs]) for path in paths]
    scales.append(_axis(metric, goals))

    def draw(figure: Figure) -> None:
        import matplotlib

        axes = figure.subplots()
        label: dict[str, Any] = {"facecolor": "#ffffff", "linewidth": 0, "alpha": 0.8, "pad": 1}
        colors = matplotlib.colormaps["viridis_r"]
        for index, (trial, _) in enumerate(pairs):
            color = colors(index / max(1, len(pairs) - 1))
            best = index == len(pairs) - 1
            places = [scale.places[index] for scale in scales]
            axes.plot(
                places, color=color, linewidth=2.5 if best else 1, alpha=1 if best else 0.6, gid=f"trial-{trial.id}"
            )
        for index, scale in enumerate(scales):
            axes.axvline(index, color="#000000", linewidth=0.8)
            for place, text in scale.ticks:
                axes.text(index + 0.02, place, text, fontsize=8, va="center", parse_math=False, bbox=label)
        axes.set_xticks(range(len(scales)), [scale.title for scale in scales], fontsize=8)
        axes.set_xlim(-0.1, len(scales) - 0.6)
        axes.set_yticks([])
        axes.set_frame_on(False)
        if not pairs:
            _say(axes, "nothing was measured")

    return svg_of(draw, (max(6.0, 1.8 * len(scales)), 4.5))


def importance(found: Sequence[Importance], of: str) -> bytes:
    """An SVG with a bar per path and the 5th to 95th percentile of the refits on it; `of` says what was explained."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        order = list(reversed(found))  # the first bar is the lowest
        means = [item.mean for item in order]
        # A skewed distribution may have its mean outside of the percentiles.
        below = [max(0.0, item.mean - item.low) for item in order]
        above = [max(0.0, item.high - item.mean) for item in order]
        axes.barh([item.path for item in order], means, xerr=[below, above], color=_COLORS["finished"], capsize=4)
        axes.axvline(0, color="#000000", linewidth=0.8)
        axes.set_xlabel(f"squared error gained by shuffling, in variances of {of}\n(bar: mean, line: 5-95 % of refits)")

    return svg_of(draw, (8, 1.6 + 0.4 * len(found)))


class _Missing:
    """The value of a path that was inactive; None is a value."""


_MISSING = _Missing()


@dataclass(frozen=True)
class _Axis:
    title: str
    places: list[float]
    """Of each trial, between 0 and 1."""
    ticks: list[tuple[float, str]]


def _axis(title: str, values: Sequence[Any]) -> _Axis:
    known = [value for value in values if value is not _MISSING]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    scaled = _numbers(known) if numeric and known else _choices(known)
    places = [_INACTIVE if value is _MISSING else scaled[flow(value)][0] for value in values]
    ticks = {place: text for place, text in scaled.values() if text}
    if len(known) < len(values):
        ticks[_INACTIVE] = "inactive"
    return _Axis(title, places, sorted(ticks.items()))


def _numbers(known: Sequence[float]) -> Mapping[str, tuple[float, str]]:
    """{value: (place, tick)} with ticks at the ends and at the values nearest to thirds."""
    low, high = min(known), max(known)
    scale: Callable[[float], float] = math.log if low > 0 and high / low >= _LOG_RATIO else float
    span = scale(high) - scale(low)
    places = {value: (scale(value) - scale(low)) / span if span else 0.5 for value in known}
    marked = {min(known, key=lambda value: abs(places[value] - third / 3)) for third in range(4)}
    return {flow(value): (places[value], f"{value:.3g}" if value in marked else "") for value in known}


def _choices(known: Sequence[Any]) -> Mapping[str, tuple[float, str]]:
    texts = sorted({flow(value) for value in known})
    return {text: (place / (len(texts) - 1) if len(texts) > 1 else 0.5, text[:24]) for place, text in enumerate(texts)}


def _curve(axes: Axes, trial: Trial, metric: str, label: str) -> bool:
    """Draw the finite values of a trial; whether there were any."""
    points = [(item.epoch, decisive(item.values, metric)) for item in trial.results if metric in item.values]
    points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
    if not points:
        return False
    color = _COLORS.get(trial.state, "#000000")
    shown = "o" if len(points) == 1 else None  # a line of one point would be invisible
    style: dict[str, Any] = {"color": color, "linewidth": 1.2, "alpha": 0.8}
    axes.plot(*zip(*points, strict=True), marker=shown, markersize=3, label=label, gid=f"trial-{trial.id}", **style)
    if trial.state == "stopped":
        axes.plot(*points[-1], "x", color=color, markersize=5)
    return True


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
