"""Two runs on the same images: whether they differ, and by how much.

Accuracy by McNemar's exact test (McNemar 1947) on the images of which one run alone is right. The interval of the
difference is the score interval for paired shares of Tango (1998, Statistics in Medicine 17, section 3), which belongs
to the same test for many images; where the exact one finds no difference it is made to reach 0. Other metrics by a
paired bootstrap (Efron 1979): both runs on the same resamples. Of several runs that are compared with one, p-values and
intervals are adjusted after Bonferroni.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from raycls.errors import DataError
from raycls.progress import counted
from raycls.report.evaluated import Samples
from raycls.tasks.scores.intervals import LEVEL, RESAMPLES, SEED
from raycls.tasks.scores.resampled import Resampled

__all__ = ["LEVEL", "Compared", "Paired", "accuracy", "compare", "difference_interval", "mcnemar", "pair"]

_BETTER = {"f1_macro": "max", "nll": "min", "ece": "min"}
"""Which way each metric is better that is compared beside accuracy."""
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
        """By the test where there is one, else whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0 if self.p is None else self.p < 1 - LEVEL


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
    drawn: list[list[float]] = []
    for _ in counted(range(RESAMPLES), "resampling", RESAMPLES, "resamples"):
        times = np.bincount(draw.integers(0, len(pair), len(pair)), minlength=len(pair))
        before, after = (measure(times) for measure in measures)
        drawn.append([after[name] - before[name] for name in _BETTER])
    low, high = np.nanquantile(np.array(drawn), [outside / 2, 1 - outside / 2], axis=0)
    for index, (name, better) in enumerate(_BETTER.items()):
        one, other = own[0][name], own[1][name]
        interval = (float(low[index]), float(high[index]))
        found.append(Compared(name, one, other, other - one, *interval, None, "paired bootstrap", better))
    return found


def accuracy(first: np.ndarray, second: np.ndarray, tests: int = 1) -> Compared:
    """Of two runs, from whether each is right about each image, `[N] bool`."""
    lost, won = int((first & ~second).sum()), int((second & ~first).sum())
    count, p = len(first), min(1.0, tests * mcnemar(lost, won))
    low, high = difference_interval(won, lost, count, 1 - (1 - LEVEL) / tests)
    if p >= 1 - LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    before, after = float(first.mean()), float(second.mean())
    return Compared("top1", before, after, (won - lost) / count, low, high, p, "McNemar, exact", "max")


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value: how likely a split of the images at least as uneven is among equal runs."""
    count, least = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * _at_most(least, count)) if count else 1.0


def difference_interval(won: int, lost: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Of the difference of two shares of the same `count` images: `won` are in the second one alone, `lost` in the
    first one alone. It is where Tango's score test finds no difference, by bisection."""
    limit, found = NormalDist().inv_cdf((1 + level) / 2), (won - lost) / count
    low = _solve(lambda guess: limit - _score(guess, won, lost, count), -1.0, found)
    high = _solve(lambda guess: -limit - _score(guess, won, lost, count), found, 1.0)
    return low, high


def _score(guess: float, won: int, lost: int, count: int) -> float:
    """How many standard deviations the counts are above a difference of `guess`. The share of `lost` is the likeliest
    one with that difference, the root of a square equation."""
    linear = (2 * count - won + lost) * guess - won - lost
    share = (math.sqrt(linear * linear + 8 * count * lost * guess * (1 - guess)) - linear) / (4 * count)
    variance = count * (2 * share + guess * (1 - guess))
    above = won - lost - count * guess
    return above / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, above) if above else 0.0


def _measure(samples: Samples) -> Callable[[np.ndarray], dict[str, float]]:
    """From how often each sample is drawn to the numbers of `_BETTER`."""
    loss = {"nll": -np.log(np.maximum(samples.truth, _TINY))}
    drawn = Resampled(samples.label, samples.predicted, samples.confidence, len(samples.classes), loss)
    return lambda times: {**drawn(times), "f1_macro": drawn.f1_macro(times)}


def _at_most(hits: int, count: int) -> float:
    """The probability of at most `hits` heads of `count` coins, by sums of logarithms: 0.5 ** 50,000 is no float."""
    first = np.arange(1, hits + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log(count - first + 1) - np.log(first))])
    return min(1.0, float(np.exp(ways - count * math.log(2)).sum()))


def _solve(rises: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0, between two places."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return (low + high) / 2
