"""The winner and its rival on several seeds: mean test values with intervals, and their difference seed by seed.

The interval is Student's: it says what the seed alone does to the value. What the choice of the data did to it
is not in there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raycls.config.sections.search import decisive
from raycls.search.results import best, ranked
from raycls.search.trials import Ledger, Trial

__all__ = ["Summary", "pair", "paired", "repeats", "scores", "summarise", "t_quantile"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """The mean of `n` values, and the 95 % interval of what it would be over all seeds.

    From one value there is no interval: `low` and `high` are infinite.
    """

    n: int
    mean: float
    low: float
    high: float


def repeats(ledger: Ledger, of: str) -> list[Trial]:
    """The trials that repeat the trial `of`, in the order of their seeds."""
    found = [trial for trial in ledger.trials.values() if trial.phase == "confirm" and trial.of == of]
    return sorted(found, key=lambda trial: -1 if trial.seed is None else trial.seed)


def pair(ledger: Ledger, metric: str, mode: str) -> list[Trial]:
    """The winner and the runner-up, who are trained again; fewer where there are no two that gave a value."""
    winner = best(ledger, metric, mode)
    if winner is None:
        return []
    others = [trial for trial in ranked(ledger, metric, mode) if trial.state in ("finished", "stopped")]
    return [winner, *[trial for trial in others if trial.id != winner.id][:1]]


def scores(ledger: Ledger, of: str, metric: str) -> dict[int, float]:
    """{seed: finite test value} of the models that repeat the trial `of`; those that were not scored are left out."""
    found = {trial.seed: decisive(trial.test or {}, metric) for trial in repeats(ledger, of)}
    return {seed: value for seed, value in found.items() if seed is not None and math.isfinite(value)}


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean and interval of the values, None where there are none."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, -math.inf, math.inf)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(0.5 + _CONFIDENCE / 2, n - 1) * deviation / math.sqrt(n)
    return Summary(n, mean, mean - half, mean + half)


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Summary | None:
    """The difference first - second over the seeds that both have, None where they share none."""
    return summarise([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees of freedom stays below with `probability` in (0, 1)."""
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile for probability {probability} and {freedom} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    tails = 2 * (1 - probability)  # P(|T| > t) = I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2)
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):  # until no number is between them
        if _incomplete_beta(middle, freedom / 2, 0.5) < tails:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom * (1 - high) / high)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b): DLMF 8.17.22, and 8.17.4 where that converges slowly."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    log_factor = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_factor) / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22, by Lentz's method (Thompson and Barnett 1986)."""
    value = upper = 1.0
    lower = 0.0
    for term in range(1, 1000):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + d * lower)
        upper = 1 + d / upper
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value
