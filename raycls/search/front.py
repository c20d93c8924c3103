"""Which networks a search found that no other is both as cheap and as good as: accuracy against operations."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycls.progress import progress
from raycls.run.storage.store import Store
from raycls.search.results import cell, measured
from raycls.search.trials import Trial, TrialLog

__all__ = ["FRONT_CSV", "Priced", "front", "priced", "write_front"]

FRONT_CSV = "front.csv"


@dataclass(frozen=True)
class Priced:
    """A trial with what its network costs."""

    trial: Trial
    parameters: int
    flops: int
    """Floating-point operations of the forward pass of one sample; a multiplication and an addition are two."""
    value: float
    """The metric at its best evaluation."""


def priced(
    ledger: TrialLog, metric: str, mode: str, cost: Callable[[Mapping[str, Any]], tuple[int, int] | None]
) -> tuple[list[Priced], int]:
    """The trials that have a value, in the order of their numbers, and how many of them cannot be counted.

    `cost` gives (parameters, operations) for the values of a trial, None where its network cannot be counted.
    """
    trials = sorted(measured(ledger, metric, mode), key=lambda trial: trial.number)
    found: list[Priced] = []
    for done, trial in enumerate(trials):
        progress("counting operations", done, len(trials), "networks")
        value, counted = trial.value(metric, mode), cost(trial.chosen)
        if value is not None and counted is not None:
            found.append(Priced(trial, *counted, value))
    return found, len(trials) - len(found)


def front(points: Iterable[Priced], mode: str) -> list[Priced]:
    """The points that no other dominates, the cheapest first.

    One dominates another where it has neither more operations nor a worse value, and is better in one of the two. So
    of trials with the same operations only the best are left; those that are equal in both are all left.
    """
    sign = -1.0 if mode == "max" else 1.0
    ordered = sorted(points, key=lambda point: (point.flops, sign * point.value, point.trial.number))
    kept: list[Priced] = []
    for point in ordered:
        last = kept[-1] if kept else None
        equal = last is not None and (point.flops, point.value) == (last.flops, last.value)
        if last is None or equal or sign * point.value < sign * last.value:
            kept.append(point)
    return kept


def write_front(store: Store, points: Sequence[Priced], paths: Sequence[str], metric: str) -> None:
    """Write `front.csv`, one row per point: `trial, state, epochs, parameters, flops`, the metric, and one per path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "epochs", "parameters", "flops", metric, *paths])
    for point in points:
        trial = point.trial
        costs = [point.parameters, point.flops, repr(point.value)]
        cells = [cell(trial.chosen[path]) if path in trial.chosen else "" for path in paths]
        writer.writerow([trial.id, trial.state, f"{trial.epochs:.6g}", *costs, *cells])
    store.write_bytes(FRONT_CSV, text.getvalue().encode())
