"""The words of a search: its events, its table of trials, and the block at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from raycls.config.write import flow
from raycls.quantities import aligned, plural
from raycls.screen.run_text import value_text
from raycls.search.confirm import Summary, pair, paired, repeats, scores, summarise
from raycls.search.front import Priced
from raycls.search.results import best, measured, ranked, savings, searched
from raycls.search.trials import Trial, TrialLog

__all__ = [
    "Row",
    "chosen_text",
    "confirm_lines",
    "end_text",
    "front_lines",
    "progress_text",
    "rows",
    "search_lines",
    "start_text",
    "stop_text",
]

_STATES = ("running", "finished", "stopped", "failed")
_BEST_SHOWN = 5


@dataclass(frozen=True)
class Row:
    """One trial of the table, as text."""

    trial: str
    state: str
    epochs: str
    """`2/10`"""
    value: str
    chosen: str


def start_text(trial: Trial) -> str:
    """`trial 0003 started: optim.lr=0.01 model.name=resnet18`."""
    return f"trial {trial.id} started" + (f": {chosen_text(trial.chosen)}" if trial.chosen else "")


def stop_text(trial: Trial, metric: str, mode: str, cutoff: float | None) -> str:
    """`trial 0003 stopped at epoch 2 of 10: top1 0.6100 below 0.7200`."""
    text = f"trial {trial.id} stopped at epoch {_place(trial, ' of ')}"
    last = trial.results[-1].values.get(metric) if trial.results else None
    if last is None:
        return text
    against = "" if cutoff is None else f" {'below' if mode == 'max' else 'above'} {value_text(metric, cutoff)}"
    return f"{text}: {metric} {value_text(metric, last)}{against}"


def end_text(trial: Trial, metric: str, mode: str) -> str:
    """`trial 0003 finished at epoch 10 of 10: top1 0.9833`, with the first line of the error of a failed one."""
    value = trial.value(metric, mode)
    facts = [] if value is None else [f"{metric} {value_text(metric, value)}"]
    facts += trial.error.splitlines()[:1] if trial.error else []
    return f"trial {trial.id} {trial.state} at epoch {_place(trial, ' of ')}" + (
        f": {', '.join(facts)}" if facts else ""
    )


def progress_text(ledger: TrialLog, metric: str, mode: str) -> str:
    """`20 trials: 3 running, 5 finished, 12 stopped; best 0003 top1 0.9833`."""
    trials = searched(ledger)
    text = f"{plural(len(trials), 'trial')}{_states(trials)}"
    first = min(measured(ledger, metric, mode), key=lambda trial: _key(trial, metric, mode), default=None)
    return text if first is None else f"{text}; best {first.id} {metric} {_shown(first, metric, mode)}"


def rows(ledger: TrialLog, metric: str, mode: str, most: int = 20) -> list[Row]:
    """At most `most` trials: the running ones in the order of their start, then the others, the best first."""
    trials = list(ledger.trials.values())
    running = [trial for trial in trials if trial.state == "running"]
    others = sorted((trial for trial in trials if trial.state != "running"), key=lambda item: _key(item, metric, mode))
    return [row(trial, metric, mode) for trial in (running + others)[:most]]


def row(trial: Trial, metric: str, mode: str) -> Row:
    """A trial as text."""
    return Row(trial.id, trial.state, _place(trial, "/"), _shown(trial, metric, mode), chosen_text(trial.chosen))


def chosen_text(chosen: Mapping[str, Any]) -> str:
    """`optim.lr=0.0123 model.name=resnet18`, numbers with four significant digits."""
    texts = {path: f"{value:.4g}" if isinstance(value, float) else flow(value) for path, value in chosen.items()}
    return " ".join(f"{path}={text}" for path, text in texts.items())


def search_lines(ledger: TrialLog, metric: str, mode: str) -> list[str]:
    """What the search found: the five best trials, what stopping early saved, the winner, its confirmation."""
    trials = searched(ledger)
    lines = [f"trials     {len(trials)}{_states(trials)}"]
    run, asked = savings(ledger)
    if asked:
        spared = sum(max(0.0, trial.asked - trial.epochs) for trial in trials if trial.state == "stopped")
        saved = f": stopping early saved {_count(spared)} ({spared / asked:.0%})" if spared else ""
        lines.append(f"epochs     {_count(run)} run of {_count(asked)} asked ({run / asked:.0%}){saved}")
    order = ranked(ledger, metric, mode)
    winner = best(ledger, metric, mode)
    if not order:
        return [*lines, f"winner     none: no trial gave a {metric}"]
    lines += _table([row(trial, metric, mode) for trial in order[:_BEST_SHOWN]], metric)
    if winner is None:
        return [*lines, "winner     none: no trial finished, and none was stopped"]
    return [*lines, *_winner_lines(winner, ledger, metric, mode), *confirm_lines(ledger, metric, mode)]


def confirm_lines(ledger: TrialLog, metric: str, mode: str) -> list[str]:
    """The models trained again on other seeds, on the test split; nothing where there are none."""
    names = [trial.id for trial in pair(ledger, metric, mode) if repeats(ledger, trial.id)]
    if not names:
        return []
    lines = [f"confirm    test {metric}; the test split was scored once per model"]
    for name in names:
        found = summarise(list(scores(ledger, name, metric).values()))
        lines.append(f"           {name}: {_summary_text(found, metric)}{_missing(ledger, name, metric)}")
    for rival in names[1:]:
        found = paired(scores(ledger, names[0], metric), scores(ledger, rival, metric))
        lines.append(f"           {names[0]} - {rival}, seed by seed: {_summary_text(found, metric, signed=True)}")
        if found is not None and found.low <= 0 <= found.high:
            lines.append(f"           the interval holds 0: on {plural(found.n, 'seed')} the two cannot be told apart")
    return lines


def front_lines(front: Sequence[Priced], count: int, metric: str, mode: str) -> list[str]:
    """The networks of `front`, of `count` trials: what each costs, what it reached, and its values."""
    cells = [("trial", "FLOPs", "parameters", "epochs", metric, "values")]
    for point in front:
        shown = row(point.trial, metric, mode)
        cells.append(
            (shown.trial, f"{point.flops:,}", f"{point.parameters:,}", shown.epochs, shown.value, shown.chosen)
        )
    head = f"front      of {plural(count, 'trial')}: no other is as good for fewer FLOPs, or better for as many"
    return [head, *(f"{'':11}{line}" for line in aligned(cells, numbers=range(1, 5)))]


def _winner_lines(winner: Trial, ledger: TrialLog, metric: str, mode: str) -> list[str]:
    count, value = plural(len(measured(ledger, metric, mode)), "trial"), _shown(winner, metric, mode)
    stopped = "" if winner.state == "finished" else f", stopped at epoch {_place(winner, ' of ')}"
    return [
        f"winner     {winner.id}{stopped}" + (f": {chosen_text(winner.chosen)}" if winner.chosen else ""),
        f"           validation {metric} {value}, optimistic: selected by this value from {count}",
    ]


def _table(found: Sequence[Row], metric: str) -> list[str]:
    head = Row("trial", "state", "epochs", metric, "values")
    lines = aligned([astuple(item) for item in (head, *found)], numbers=range(2, 4))
    return [f"{'' if index else 'best':<11}{line}" for index, line in enumerate(lines)]


def _summary_text(found: Summary | None, metric: str, *, signed: bool = False) -> str:
    if found is None:
        return "no value"
    mean, low, high = (f"{number:{'+' if signed else ''}.4f}" for number in (found.mean, found.low, found.high))
    interval = f"95 % interval {low} to {high}" if found.n > 1 else "no interval from one seed"
    return f"n {found.n}, mean {mean}, {interval}"


def _missing(ledger: TrialLog, name: str, metric: str) -> str:
    asked, scored = len(repeats(ledger, name)), len(scores(ledger, name, metric))
    return "" if asked == scored else f" ({asked - scored} of {asked} gave no test value)"


def _key(trial: Trial, metric: str, mode: str) -> tuple[float, int]:
    """Sorts the best first, those without a value last, regardless of how they ended."""
    value = trial.value(metric, mode)
    return (math.inf if value is None else -value if mode == "max" else value), trial.number


def _place(trial: Trial, between: str) -> str:
    return f"{_count(trial.epochs)}{between}{_count(trial.asked)}"


def _count(epochs: float) -> str:
    return f"{epochs:.2f}".rstrip("0").rstrip(".")


def _states(trials: Sequence[Trial]) -> str:
    counts = {state: sum(trial.state == state for trial in trials) for state in _STATES}
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f": {text}" if text else ""


def _shown(trial: Trial, metric: str, mode: str) -> str:
    value = trial.value(metric, mode)
    return "-" if value is None else value_text(metric, value)
