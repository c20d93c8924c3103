"""What came out of a search: `trials.csv`, the order of its trials, the best one, and what stopping early saved."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from raycls.config.write import flow
from raycls.run.storage.store import Store
from raycls.search.trials import Trial, TrialLog

__all__ = ["CSV", "best", "cell", "measured", "ranked", "savings", "searched", "write_csv"]

CSV = "trials.csv"

# A value after fewer epochs is no equal of one after all of them: a trial that ended comes first.
_ORDER = {"finished": 0, "stopped": 1, "running": 2, "failed": 3}


def searched(ledger: TrialLog) -> list[Trial]:
    """The trials of the search itself, without those that confirm its result, in the order of their start."""
    return [trial for trial in ledger.trials.values() if trial.phase == "search"]


def measured(ledger: TrialLog, metric: str, mode: str) -> list[Trial]:
    """The trials of the search that have a finite value and did not fail: the winner is selected from them."""
    return [trial for trial in searched(ledger) if trial.state != "failed" and trial.value(metric, mode) is not None]


def ranked(ledger: TrialLog, metric: str, mode: str) -> list[Trial]:
    """The trials of the search that have a finite value, the best first.

    Finished ones come before stopped, these before running and failed ones; of equal values the smaller number
    comes first.
    """
    sign = -1.0 if mode == "max" else 1.0
    keyed = [(trial, trial.value(metric, mode)) for trial in searched(ledger)]
    found = [
        (_ORDER.get(trial.state, 4), sign * value, trial.number, trial) for trial, value in keyed if value is not None
    ]
    return [trial for *_, trial in sorted(found, key=lambda item: item[:3])]


def best(ledger: TrialLog, metric: str, mode: str) -> Trial | None:
    """The best finished trial, the best stopped one where none finished, None where neither has a value.

    A search that ended because a trial reached its target was ended by that trial: there, the value alone counts.
    """
    if ledger.end_reason == "target":
        sign = 1.0 if mode == "max" else -1.0
        values = {trial.id: trial.value(metric, mode) for trial in measured(ledger, metric, mode)}
        return max(
            measured(ledger, metric, mode),
            key=lambda item: (sign * (values[item.id] or 0.0), -item.number),
            default=None,
        )
    first = next(iter(ranked(ledger, metric, mode)), None)
    return first if first is not None and first.state in ("finished", "stopped") else None


def savings(ledger: TrialLog) -> tuple[float, float]:
    """(epochs run, epochs asked) over the trials of the search that were started."""
    trials = searched(ledger)
    return sum(trial.epochs for trial in trials), sum(trial.asked for trial in trials)


def write_csv(store: Store, ledger: TrialLog, paths: Sequence[str], metric: str, mode: str) -> None:
    """Write `trials.csv`, one row per trial of the search in the order of their numbers.

    Columns `trial, state, epochs`, the metric, and one per searched path, which is empty where the path was
    inactive. Text stands as it is, lists and mappings as YAML in one line.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "epochs", metric, *paths])
    for trial in sorted(searched(ledger), key=lambda item: item.number):
        value = trial.value(metric, mode)
        cells = [cell(trial.chosen[path]) if path in trial.chosen else "" for path in paths]
        writer.writerow([trial.id, trial.state, f"{trial.epochs:.6g}", "" if value is None else repr(value), *cells])
    store.write_bytes(CSV, text.getvalue().encode())


def cell(value: Any) -> str:
    """A value in a CSV: text as it is, lists and mappings as YAML in one line."""
    return value if isinstance(value, str) else flow(value)
