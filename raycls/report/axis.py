"""Where values lie on an axis, and which of them are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "axis", "number"]

_WIDE = 200.0
"""Positive values that differ by more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Axis:
    """A scale from the lowest to the highest value, and its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    share: bool = False
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; outside of both for a value outside."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def text(self, tick: float) -> str:
        """How a tick is written: with no more digits than tell it from its neighbours."""
        if self.share:
            return f"{round(100 * tick, 2):g} %"
        if self.logarithmic or not tick:
            return f"{tick:.0e}".replace("e-0", "e-").replace("e+0", "e") if tick and tick < 0.01 else f"{tick:g}"
        return number(round(tick, 12))


def axis(
    values: Sequence[float], *, share: bool = False, ticks: int = 4, linear: bool = False, from_zero: bool = False
) -> Axis:
    """The axis of finite `values`, with about `ticks` ticks. A `share` ends at 0 and 1 at the outermost.

    Values far apart get a logarithmic axis, unless it is to be `linear`.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if from_zero:
        low, linear = min(low, 0.0), True
    if not share and not linear and low > 0 and high / low > _WIDE:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = max(1, math.ceil((last - first) / ticks))
        return Axis(10.0**first, 10.0**last, tuple(10.0**power for power in range(first, last + 1, every)), False, True)
    if high - low < 1e-12 * max(1.0, abs(high)):
        spread = 0.05 if share else max(abs(high) * 0.1, 1e-6)
        low, high = low - spread, high + spread
    if share:
        low, high = max(0.0, low), min(1.0, high)
    step = _step((high - low) / ticks)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if share:
        bottom, top = max(0.0, bottom), min(1.0, top)
    count = round((top - bottom) / step)
    return Axis(bottom, top, tuple(bottom + index * step for index in range(count + 1)), share)


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is short: `0.4583`, `1,525`, `3e-05`."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3e}"
    return f"{value:.4g}"


def _step(rough: float) -> float:
    """The next of 1, 2, 2.5 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
