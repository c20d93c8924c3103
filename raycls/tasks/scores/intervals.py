"""How far a number of an evaluation may be from that of all images like these: an interval for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from raycls.progress import counted

__all__ = ["LEVEL", "RESAMPLES", "SEED", "bootstrap", "deviation", "jackknife", "wilson"]

LEVEL = 0.95
_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: two of them enclose `LEVEL`."""
RESAMPLES, SEED = 1000, 0


def wilson(hits: int, count: int) -> dict[str, Any]:
    """Of a share `hits / count`: Wilson 1927, which is inside 0 and 1 and has a width where all or none are hits."""
    share, square = hits / count, _Z * _Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == count else min(1.0, middle + half)
    return {"low": low, "high": high, "method": "wilson"}


def jackknife(value: float, deviation: float) -> dict[str, Any]:
    """Of a share with a standard error: normal on the logit scale, so that it stays inside 0 and 1.

    Without a width where the value is 0 or 1, as a bootstrap's would be.
    """
    if not 0 < value < 1:
        return {"low": value, "high": value, "method": "jackknife"}
    middle, half = math.log(value / (1 - value)), _Z * deviation / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, end)))) for end in (middle - half, middle + half))
    return {"low": low, "high": high, "method": "jackknife"}


def deviation(without: np.ndarray, times: np.ndarray | None = None) -> float:
    """The standard error by the jackknife, from what a number is `without` each of N rows, or each of some kinds of
    rows of which there are `times`."""
    weights = np.ones(len(without)) if times is None else times
    count = weights.sum()
    # products and sums, no dot product: BLAS adds otherwise with another number of threads
    mean = (weights * without).sum() / count
    return math.sqrt((count - 1) / count * (weights * np.square(without - mean)).sum())


def bootstrap(
    measure: Callable[[np.ndarray], Mapping[str, float]],
    count: int,
    *,
    pivotal: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, dict[str, Any]]:
    """Of any numbers of `count` rows: the percentile bootstrap (Efron 1979).

    `measure` is handed how often each row was drawn, `[N]` integers that sum up to `count`. A number that is NaN in
    some resamples has its interval from the others. Numbers of `pivotal` are distances that noise makes larger, so that
    those of resamples lie above: their interval is that of the differences, no lower than 0 (Davison and Hinkley 1997,
    section 2.4).
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    drawn = [
        measure(np.bincount(draw.integers(0, count, count), minlength=count))
        for _ in counted(range(resamples), "resampling", resamples, "resamples")
    ]
    found: dict[str, dict[str, Any]] = {}
    own = measure(np.ones(count, np.int64)) if pivotal else {}
    for name in drawn[0]:
        low, high = np.nanquantile([each[name] for each in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        method = "bootstrap"
        if name in pivotal:
            low, high, method = max(0.0, 2 * own[name] - high), max(0.0, 2 * own[name] - low), "bootstrap-pivotal"
        found[name] = {"low": float(low), "high": float(high), "method": method}
    return found
