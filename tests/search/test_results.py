from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from raycls.run.storage.store import Store
from raycls.search.results import CSV, best, measured, ranked, savings, write_csv
from raycls.search.trials import TrialLog, trial_id


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLog:
    return TrialLog(Store(tmp_path / "search"))


def trial(ledger: TrialLog, number: int, state: str | None, values: list[float], **rest: Any) -> None:
    """A trial of ten epochs with a top1 after each of the first ones."""
    facts = {"chosen": {"optim.lr": 0.1 / number}, "asked": 10, "steps_per_epoch": 5, **rest}
    name = ledger.add_trial(trial_id(number, rest.get("seed")), number=number, **facts).id
    for epoch, value in enumerate(values, start=1):
        ledger.result(name, step=5 * epoch, epoch=epoch, seconds=epoch, values={"top1": value, "loss": 1 - value})
    if state:
        ledger.end(name, state=state, epochs=len(values), seconds=1.0)


def ids(ledger: TrialLog, metric: str = "top1", mode: str = "max") -> list[str]:
    return [item.id for item in ranked(ledger, metric, mode)]


def test_finished_trials_come_first_then_the_better_value_then_the_smaller_number(ledger: TrialLog) -> None:
    trial(ledger, 1, "stopped", [0.9])
    trial(ledger, 2, "finished", [0.5, 0.7])
    trial(ledger, 3, "finished", [0.8, 0.6])
    trial(ledger, 4, "finished", [0.1, 0.7])
    trial(ledger, 5, "failed", [0.99])
    trial(ledger, 6, None, [0.95])
    trial(ledger, 7, "finished", [float("nan")])
    trial(ledger, 8, "finished", [1.0], phase="confirm", of="0003", seed=1)
    assert ids(ledger) == ["0003", "0002", "0004", "0001", "0006", "0005"]
    assert ids(ledger, "loss", "min") == ids(ledger)
    assert [item.id for item in measured(ledger, "top1", "max")] == ["0001", "0002", "0003", "0004", "0006"]
    winner = best(ledger, "top1", "max")
    assert winner is not None and winner.id == "0003"


def test_a_stopped_trial_wins_only_where_none_finished(ledger: TrialLog) -> None:
    assert best(ledger, "top1", "max") is None
    trial(ledger, 1, "failed", [0.9])
    trial(ledger, 2, None, [0.8])
    assert best(ledger, "top1", "max") is None
    trial(ledger, 3, "stopped", [0.2])
    winner = best(ledger, "top1", "max")
    assert winner is not None and winner.id == "0003"


def test_savings_count_the_epochs_of_the_search_alone(ledger: TrialLog) -> None:
    assert savings(ledger) == (0, 0)
    trial(ledger, 1, "finished", [0.5] * 10)
    trial(ledger, 2, "stopped", [0.5])
    trial(ledger, 3, "failed", [])
    trial(ledger, 4, None, [0.5] * 3)
    trial(ledger, 1, "finished", [0.5] * 10, phase="confirm", of="0001", seed=1)
    assert savings(ledger) == (14, 40)


def test_csv_has_a_row_per_trial_of_the_search(ledger: TrialLog, tmp_path: Path) -> None:
    trial(ledger, 2, None, [], chosen={"model.name": "tiny, small", "optim.nesterov": False, "model.args": {"w": 8}})
    trial(ledger, 1, "finished", [0.1 + 0.2, 0.25], chosen={"model.name": "off", "optim.lr": 1e-05})
    trial(ledger, 3, "failed", [float("nan")], chosen={"model.name": None, "optim.lr": 3})
    trial(ledger, 1, "finished", [1.0], phase="confirm", of="0001", seed=1)
    store = Store(tmp_path / "search")
    paths = ["model.name", "optim.lr", "optim.nesterov", "model.args"]
    write_csv(store, ledger, paths, "top1", "max")
    text = store.read_bytes(CSV).decode()
    assert text.splitlines()[0] == "trial,state,epochs,top1,model.name,optim.lr,optim.nesterov,model.args"
    rows = list(csv.reader(io.StringIO(text)))[1:]
    assert rows[0] == ["0001", "finished", "2", repr(0.1 + 0.2), "off", "1.0e-05", "", ""]
    assert rows[1] == ["0002", "running", "0", "", "tiny, small", "", "false", "{w: 8}"]
    assert rows[2] == ["0003", "failed", "1", "", "null", "3", "", ""]
    assert float(rows[0][5]) == 1e-05
