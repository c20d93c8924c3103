"""Shapes of the learning rate over a whole run: schedules as those of `raycls.train.schedules`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Fraction, Positive
from raycls.errors import ConfigError
from raycls.quantities import plural
from raycls.train.schedules import Factor, Steps, half_cosine

__all__ = ["one_cycle", "polynomial", "range_test", "wsd"]


def polynomial(steps: Steps, *, power: Positive = 1.0, min_factor: Fraction = 0.0) -> Factor:
    """(1 - t/T)**`power` down to `min_factor`, which it would reach one step after the last; a line where it is 1."""
    length = max(1, steps.total - steps.warmup)
    return lambda step: min_factor + (1 - min_factor) * (1 - min(1.0, step / length)) ** power


def one_cycle(
    steps: Steps,
    *,
    peak: Duration = Duration(30, "%"),
    start_factor: Fraction = 0.04,
    min_factor: Fraction = 4e-6,
    shape: Literal["cosine", "linear"] = "cosine",
) -> Factor:
    """From `start_factor` up to 1 in the step that ends the time `peak`, and down to `min_factor` in the last one.

    Smith and Topin 2018, as torch's OneCycleLR has it (`pct_start`, 1/`div_factor`, 1/(`div_factor` times
    `final_div_factor`)), without its cycle of the momentum. It warms up by itself.
    """
    if steps.warmup:
        raise ConfigError(
            "one_cycle warms up by itself",
            where="schedule.warmup",
            found=f"{plural(steps.warmup, 'step')} beside schedule.name: one_cycle",
            fix="set schedule.warmup=0st; schedule.args.peak is how long its rate rises",
        )
    top, last = steps.count(peak, "peak", least=2) - 1, max(1, steps.total - 1)
    curve = half_cosine if shape == "cosine" else _line

    def factor(step: int) -> float:
        if step <= top:
            return start_factor + (1 - start_factor) * (1 - curve(step / top, 0.0))
        return curve((step - top) / max(1, last - top), min_factor)

    return factor


def range_test(steps: Steps, *, min_factor: Annotated[float, Field(gt=0, lt=1)] = 1e-6) -> Factor:
    """From `min_factor` up to 1 in the last step, by the same factor in each: a range test of the learning rate.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3; here in equal parts of a logarithm.
    """
    last = max(1, steps.total - steps.warmup - 1)
    return lambda step: min_factor ** (1 - min(1.0, step / last))


def wsd(
    steps: Steps,
    *,
    decay: Duration = Duration(20, "%"),
    min_factor: Fraction = 0.0,
    shape: Literal["linear", "cosine", "sqrt"] = "linear",
) -> Factor:
    """Warm-up, stable, decay: constant after the warm-up, and over the last `decay` of the run down to `min_factor`.

    Hu et al. 2024 (MiniCPM), section 4.1; `sqrt` falls as 1 - sqrt(t), Hägele et al. 2024, equation 1.
    """
    length = max(1, steps.total - steps.warmup)
    falling = min(length, steps.count(decay, "decay"))
    curve = {"linear": _line, "cosine": half_cosine, "sqrt": lambda part, lowest: _line(math.sqrt(part), lowest)}[shape]
    return lambda step: curve(max(0.0, (step - length + falling) / falling), min_factor)


def _line(part: float, lowest: float) -> float:
    """From 1 at `part` 0 to `lowest` at `part` 1 and beyond."""
    return lowest + (1 - lowest) * (1 - min(1.0, part))
