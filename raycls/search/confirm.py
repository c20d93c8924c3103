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
from raycls.search.trials import Trial, TrialLog

__all__ = ["Summary", "pair", "paired", "repeats", "scores", "summarise", "t_quantile"]

_NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
_QUANTILES = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)
"""The 97.5 % quantiles of Student's t with 1 to 9 degrees of freedom."""


@dataclass(frozen=True)
class Summary:
    """The mean of `n` values, and the 95 % interval of what it would be over all seeds.

    From one value there is no interval: `low` and `high` are infinite.
    """

    n: int
    mean: float
    low: float
    high: float


def repeats(ledger: TrialLog, of: str) -> list[Trial]:
    """The trials that repeat the trial `of`, in the order of their seeds."""
    found = [trial for trial in ledger.trials.values() if trial.phase == "confirm" and trial.of == of]
    return sorted(found, key=lambda trial: -1 if trial.seed is None else trial.seed)


def pair(ledger: TrialLog, metric: str, mode: str) -> list[Trial]:
    """The winner and the runner-up, who are trained again; fewer where there are no two that gave a value."""
    winner = best(ledger, metric, mode)
    if winner is None:
        return []
    others = [trial for trial in ranked(ledger, metric, mode) if trial.state in ("finished", "stopped")]
    return [winner, *[trial for trial in others if trial.id != winner.id][:1]]


def scores(ledger: TrialLog, of: str, metric: str) -> dict[int, float]:
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
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Summary(n, mean, mean - half, mean + half)


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Summary | None:
    """The difference first - second over the seeds that both have, None where they share none."""
    return summarise([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def t_quantile(freedom: int) -> float:
    """The half width of Student's 95 % interval in standard errors: its 97.5 % quantile, to four decimals.

    Looked up below 10 degrees of freedom (scipy.stats.t.ppf; NIST/SEMATECH e-Handbook 1.3.6.7.2), above by the
    expansion around the normal quantile (Abramowitz and Stegun 26.7.5), which is off by less than 0.00001 there.
    """
    if freedom < 1:
        raise ValueError(f"no quantile for {freedom} degrees of freedom")
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    z, n = _NORMAL, freedom
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / n**power for power, term in enumerate(terms))
