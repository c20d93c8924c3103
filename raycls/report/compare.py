"""Two runs on the same images: whether they differ, and by how much.

Accuracy by McNemar's exact test (McNemar 1947) on the images of which one run alone is right. The interval of the
difference is that of Clopper and Pearson (1934) for the share of these images, so that it is without 0 exactly where
the test says that the runs differ. Other metrics by a paired bootstrap (Efron 1979): both runs on the same resamples.
Of several runs that are compared with one, p-values and intervals are adjusted after Bonferroni.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raycls.errors import DataError
from raycls.progress import counted
from raycls.report.evaluated import Samples

__all__ = ["LEVEL", "Compared", "Paired", "accuracy", "compare", "mcnemar", "pair", "share_interval"]

LEVEL = 0.95
RESAMPLES, SEED = 1000, 0
_BINS = 15
"""Of the expected calibration error, as `raycls eval` has them."""
_TINY = 1e-300


@dataclass(frozen=True)
class Paired:
    """The images that two runs were both evaluated on, as the same class."""

    first: Samples
    second: Samples
    left_out: int
    """Images of either run that the other one was not evaluated on."""
    relabelled: int
    """Images that the runs take for images of different classes."""

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Compared:
    """One metric of two runs."""

    name: str
    first: float
    second: float
    difference: float
    """`second - first`."""
    low: float
    high: float
    """The interval of the difference."""
    p: float | None
    """Of McNemar's test, adjusted; None for a bootstrap."""
    method: str
    better: str
    """`max` or `min`: which way is better."""

    @property
    def differs(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0


def pair(first: Samples, second: Samples) -> Paired:
    """Find the images of both by their keys. DataError where there is none, or a key stands for several images."""
    place = {key: row for row, key in enumerate(first.keys)}
    if len(place) < len(first) or len(set(second.keys)) < len(second):
        raise DataError("several images have the same key, so that they cannot be paired")
    rows = np.array([(place[key], row) for row, key in enumerate(second.keys) if key in place], np.int64).reshape(-1, 2)
    if not len(rows):
        raise DataError(
            "the runs have no image in common",
            found=f"{first.keys[0]} and so on; {second.keys[0]} and so on"
            if len(first) and len(second)
            else "no image",
            valid="runs that were evaluated on the same images",
            fix="evaluate both on the same data: raycls eval RUN --data PATH",
        )
    names = [np.array(samples.classes, object)[samples.label] for samples in (first, second)]
    same = names[0][rows[:, 0]] == names[1][rows[:, 1]]
    kept = rows[same]
    if not len(kept):
        raise DataError("the runs take every image in common for another class", found=f"{len(rows)} images")
    only = len(first) + len(second) - 2 * len(rows)
    return Paired(first.take(kept[:, 0]), second.take(kept[:, 1]), only, int((~same).sum()))


def compare(pair: Paired, tests: int = 1) -> list[Compared]:
    """Accuracy, macro F1, negative log-likelihood and calibration error of both.

    `tests` is how many comparisons are made together: all of their intervals hold with a probability of `LEVEL`.
    """
    outside = (1 - LEVEL) / tests
    found = [accuracy(pair.first.right, pair.second.right, tests)]
    measures = [_measure(samples) for samples in (pair.first, pair.second)]
    own = [measure(np.ones(len(pair), np.int64)) for measure in measures]
    draw = np.random.Generator(np.random.PCG64(SEED))
    drawn: list[np.ndarray] = []
    for _ in counted(range(RESAMPLES), "resampling", RESAMPLES, "resamples"):
        times = np.bincount(draw.integers(0, len(pair), len(pair)), minlength=len(pair))
        drawn.append(measures[1](times) - measures[0](times))
    low, high = np.nanquantile(np.array(drawn), [outside / 2, 1 - outside / 2], axis=0)
    for index, (name, better) in enumerate((("f1_macro", "max"), ("nll", "min"), ("ece", "min"))):
        one, other = float(own[0][index]), float(own[1][index])
        interval = (float(low[index]), float(high[index]))
        found.append(Compared(name, one, other, other - one, *interval, None, "paired bootstrap", better))
    return found


def accuracy(first: np.ndarray, second: np.ndarray, tests: int = 1) -> Compared:
    """Of two runs, from whether each is right about each image, `[N] bool`."""
    lost, won = int((first & ~second).sum()), int((second & ~first).sum())
    count, differing = len(first), lost + won
    low, high = share_interval(won, differing, 1 - (1 - LEVEL) / tests) if differing else (0.5, 0.5)
    interval = ((2 * low - 1) * differing / count, (2 * high - 1) * differing / count)
    p = min(1.0, tests * mcnemar(lost, won))
    before, after = float(first.mean()), float(second.mean())
    return Compared("top1", before, after, (won - lost) / count, *interval, p, "McNemar, exact", "max")


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value: how likely a split of the images at least as uneven is among equal runs."""
    count, least = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * _at_most(least, count, 0.5)) if count else 1.0


def share_interval(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934), by bisection."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else _solve(lambda share: 1 - _at_most(hits - 1, count, share) - tail)
    high = 1.0 if hits == count else _solve(lambda share: tail - _at_most(hits, count, share))
    return low, high


def _measure(samples: Samples) -> Callable[[np.ndarray], np.ndarray]:
    """(macro F1, negative log-likelihood, calibration error) of a resample, from how often each row is in it."""
    size, right = len(samples.classes), samples.right
    loss = -np.log(np.maximum(samples.truth, _TINY))
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    bins = np.clip(np.searchsorted(edges, samples.confidence, side="left") - 1, 0, _BINS - 1)
    gap = samples.confidence - right

    def measure(times: np.ndarray) -> np.ndarray:
        truth = np.bincount(samples.label, times, minlength=size)
        predicted = np.bincount(samples.predicted, times, minlength=size)
        hits = np.bincount(samples.label, times * right, minlength=size)
        occurs = truth + predicted > 0
        f1 = (2 * hits[occurs] / (truth + predicted)[occurs]).mean()
        count = times.sum()
        return np.array([f1, (times * loss).sum() / count, np.abs(np.bincount(bins, times * gap)).sum() / count])

    return measure


def _at_most(hits: int, count: int, share: float) -> float:
    """The probability of at most `hits` of `count`, by sums of logarithms: 0.5 ** 50,000 is no float."""
    if share <= 0 or share >= 1:
        return 1.0 if share <= 0 or hits >= count else 0.0
    first = np.arange(1, hits + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log(count - first + 1) - np.log(first))])
    each = np.arange(hits + 1)
    return min(1.0, float(np.exp(ways + each * math.log(share) + (count - each) * math.log1p(-share)).sum()))


def _solve(rises: Callable[[float], float]) -> float:
    """Where a rising function of a share is 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return (low + high) / 2
