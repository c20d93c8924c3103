"""How much each searched path mattered: permutation importance of a random forest, with its uncertainty.

Breiman: Random Forests, Machine Learning 45, 2001, section 10. The forest is fitted again on bootstrap samples
of the trials, and each path is shuffled among the trials that the fit did not see: with few trials the
importances of two fits differ widely, and a figure without its spread would hide that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from raycls.config.sections.search import decisive
from raycls.config.write import flow
from raycls.search.trials import Trial

__all__ = ["Importance", "comparable", "importances"]

_FEWEST = 10
"""A bootstrap sample of fewer trials leaves out about three or less, which measure nothing."""
_TREES, _SHUFFLES = 50, 5


@dataclass(frozen=True)
class Importance:
    """The squared error that the forest gains when the values of `path` are shuffled, in variances of the metric.

    0 is no influence, and about 2 is all of it. Below 0 is noise.
    """

    path: str
    mean: float
    """Over the refits."""
    low: float
    """The 5th percentile of the refits."""
    high: float
    """The 95th."""


def comparable(trials: Iterable[Trial], metric: str) -> tuple[float, list[tuple[Trial, float]]]:
    """(epoch, [(trial, value)]): each trial's newest value at the last epoch that all of them reached.

    Only then is a stopped trial an equal of a finished one. Trials that have not ended, that failed, or that
    have no finite value by that epoch are left out. The epoch is 0 where there are none.
    """
    found = {
        trial.id: (trial, [item for item in trial.results if metric in item.values])
        for trial in trials
        if trial.phase == "search" and trial.state in ("finished", "stopped")
    }
    reached = [max(item.epoch for item in results) for _, results in found.values() if results]
    epoch = min(reached, default=0.0)
    pairs: list[tuple[Trial, float]] = []
    for trial, results in found.values():
        values = [decisive(item.values, metric) for item in results if item.epoch <= epoch + 1e-9]
        if values and math.isfinite(values[-1]):
            pairs.append((trial, values[-1]))
    return epoch, pairs


def importances(
    trials: Sequence[Trial], paths: Sequence[str], metric: str, *, refits: int = 20
) -> tuple[list[Importance], str]:
    """(importances, ""), the greatest mean first, or ([], why there are none). Equal trials give equal numbers."""
    if any(trial.exploits for trial in trials):
        return [], "the values of a trial changed while it ran"
    _, pairs = comparable(trials, metric)
    if len(pairs) < _FEWEST:
        return [], f"it needs {_FEWEST} trials that ended with a {metric}, there are {len(pairs)}"
    values = np.array([value for _, value in pairs])
    if not paths or np.ptp(values) == 0:
        return [], f"all trials gave the same {metric}" if paths else "nothing was searched"
    columns = np.stack([_column([trial for trial, _ in pairs], path) for path in paths], axis=1)
    fits = [_refit(columns, values, seed) for seed in range(refits)]
    drops = np.stack([fit for fit in fits if fit is not None])
    low, high = np.percentile(drops, [5, 95], axis=0)
    numbers = zip(paths, drops.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return sorted((Importance(*item) for item in numbers), key=lambda item: -item.mean), ""


def _refit(columns: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray | None:
    """The importance of each column `[P]` for a forest on one bootstrap sample; None if that has all the trials.

    `columns` is `[N, P]` with NaN where a path was inactive, `values` `[N]`.
    """
    from sklearn.ensemble import RandomForestRegressor  # slow to import

    generator = np.random.default_rng(seed)
    count, width = columns.shape
    inside = generator.integers(0, count, size=count)
    outside = np.setdiff1d(np.arange(count), inside)
    if not outside.size:
        return None
    forest = RandomForestRegressor(n_estimators=_TREES, random_state=seed, n_jobs=1)
    forest.fit(columns[inside], values[inside])
    held, truth = columns[outside], values[outside]
    shuffled = np.tile(held, (width, _SHUFFLES, 1, 1))  # [P, shuffles, N outside, P]
    for path in range(width):
        active = np.flatnonzero(~np.isnan(held[:, path]))  # an inactive path stays inactive
        for turn in range(_SHUFFLES):
            shuffled[path, turn, active, path] = held[generator.permutation(active), path]
    predicted = np.asarray(forest.predict(np.concatenate([held, shuffled.reshape(-1, width)])))
    errors = (predicted.reshape(-1, len(outside)) - truth) ** 2
    before, after = errors[0].mean(), errors[1:].reshape(width, -1).mean(axis=1)
    return (after - before) / values.var()


def _column(trials: Sequence[Trial], path: str) -> np.ndarray:
    """Numbers as they are, anything else as its place among the sorted choices; NaN where the path was inactive."""
    known = {trial.id: trial.first_chosen[path] for trial in trials if path in trial.first_chosen}
    if all(isinstance(value, int | float) for value in known.values()):
        codes = {name: float(value) for name, value in known.items()}
    else:
        choices = sorted({flow(value) for value in known.values()})
        codes = {name: float(choices.index(flow(value))) for name, value in known.items()}
    return np.array([codes.get(trial.id, math.nan) for trial in trials])
