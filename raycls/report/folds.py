"""What the folds of a cross-validation say together: the mean of a metric, and its interval by Student's t.

The training sets of two folds share most of their images, so the folds are no independent trials and the interval is
too narrow by an unknown factor: no estimate of the variance of k folds is without bias (Bengio and Grandvalet 2004, No
Unbiased Estimator of the Variance of K-Fold Cross-Validation, JMLR 5, theorem 2). It says how much the folds differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raycls.config.load import difference
from raycls.errors import ConfigError
from raycls.report.runs import Told
from raycls.search.confirm import Summary, summarise

__all__ = ["Folds", "lines", "summary"]

_OWN = ("data.fold.index", "run.name", "run.storage")


@dataclass(frozen=True)
class Folds:
    """The folds of one config."""

    metric: str
    values: tuple[float, ...]
    """The value of each fold's kept weights, in the order of the folds."""
    counts: tuple[int, ...]
    """Images of each val split."""

    together: Summary
    """Of the folds, each counted once."""


def lines(folds: Folds) -> list[str]:
    """The value of each fold, their mean with its 95 % interval, and how far they lie apart."""
    shown = [f"fold {at}: {value:.4f}  ({count} images)" for at, (value, count) in enumerate(_pairs(folds))]
    mean, low, high = folds.together.mean, folds.together.low, folds.together.high
    half = f"{mean:.4f}, 95 % interval {low:.4f} to {high:.4f}"
    return [f"{folds.metric} on the val split of each fold", *shown, f"mean of {len(folds.values)} folds: {half}"]


def _pairs(folds: Folds) -> list[tuple[float, int]]:
    return list(zip(folds.values, folds.counts, strict=True))


def summary(runs: Sequence[Told]) -> Folds:
    """The folds together. ConfigError where they are not all folds of one config, each once and trained to its end."""
    first = runs[0].config
    of = first.data.fold.of
    if of == "off":
        raise _wrong("a run is no fold of a cross-validation", runs[0], "data.fold.of: off")
    for told in runs:
        other = [each for each in difference(first, told.config) if not (each.harmless or each.path in _OWN)]
        if other:
            raise _wrong("the runs differ in more than their fold", told, "; ".join(map(str, other[:3])))
        if told.result is None or told.result.get("state") not in ("done", "early"):
            raise _wrong("a fold is not trained to its end", told, told.state)
        if (told.environment.get("data") or {}).get("classes") != (runs[0].environment.get("data") or {}).get(
            "classes"
        ):
            raise _wrong("a fold has other classes", told, ", ".join(told.classes))
    by_index = {told.config.data.fold.index: told for told in runs}
    lost = [index for index in range(of) if index not in by_index]
    if lost or len(by_index) < len(runs):
        found = ", ".join(f"{told.name}: {told.config.data.fold.index}" for told in runs)
        raise ConfigError(
            f"these are not the {of} folds, each once",
            where="data.fold.index",
            found=found,
            valid=f"one run for each of 0 to {of - 1}",
            fix=f"train those that are missing: {', '.join(map(str, lost))}" if lost else None,
        )
    facts = [_evaluated(by_index[index]) for index in range(of)]
    metric = first.evaluate.metric
    values = tuple(float(each[metric]) for each in facts)
    together = summarise(values) or Summary(0, 0.0, 0.0, 0.0)  # there are at least two folds
    return Folds(metric, values, tuple(each["count"] for each in facts), together)


def _evaluated(told: Told) -> dict[str, Any]:
    """The evaluation of the weights that stand in `model/`."""
    result = told.result or {}
    found = result.get("best" if (result.get("kept") or {}).get("name") == "best" else "final") or result.get("final")
    if not found or found.get("split") != "val" or told.config.evaluate.metric not in found:
        raise _wrong("a fold was not evaluated on its val split", told, str((found or {}).get("split")))
    return found


def _wrong(what: str, told: Told, found: str) -> ConfigError:
    return ConfigError(what, where=told.folder.store.describe(), found=found)
