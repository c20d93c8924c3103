from __future__ import annotations

import json
import math
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from raycls.errors import CheckpointError
from raycls.run.storage.store import Store
from raycls.search.trials import Exploit, Result, TrialLog, trial_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "search")


def add(ledger: TrialLog, number: int = 1, **rest: Any) -> str:
    facts = {"chosen": {"optim.lr": 0.1, "model.name": "tiny_cnn"}, "asked": 10, "steps_per_epoch": 5, **rest}
    return ledger.add_trial(trial_id(number), number=number, **facts).id


def measure(ledger: TrialLog, name: str, epoch: int, top1: float = 0.5, **rest: Any) -> bool:
    return ledger.result(name, step=5 * epoch, epoch=epoch, seconds=2.0 * epoch, values={"top1": top1}, **rest)


def file_lines(store: Store) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in store.read_lines(TrialLog.FILE) if line]


def test_what_is_read_is_what_was_known(store: Store) -> None:
    ledger = TrialLog(store)
    assert ledger.start() == 1
    first, second = add(ledger, 1), add(ledger, 2, chosen={"optim.betas": (0.9, 0.99)}, seed=7)
    assert measure(ledger, first, 1, 0.5, rung=1, cutoff=0.4)
    assert measure(ledger, second, 1, 0.25)
    ledger.stop(second, step=5, why="top1 0.25 below 0.4")
    ledger.end(second, state="stopped", epochs=1, seconds=3.5)
    ledger.end(first, state="failed", epochs=1.5, seconds=4, error="out of memory\nat step 7")
    again = add(ledger, 3, phase="confirm", of="0001", seed=1)
    ledger.test(again, values={"top1": 0.75})
    ledger.end_search("trials")

    read = TrialLog(store)
    assert read.trials == ledger.trials
    assert (read.attempt, read.end_reason) == (1, "trials")
    one, two, three = read.trials.values()
    assert one.results == [Result(5, 1.0, 2.0, {"top1": 0.5}, rung=1.0, cutoff=0.4)]
    assert (one.state, one.epochs, one.seconds, one.error) == ("failed", 1.5, 4.0, "out of memory\nat step 7")
    assert (two.state, two.why, two.epochs, two.seed) == ("stopped", "top1 0.25 below 0.4", 1.0, 7)
    assert two.chosen == {"optim.betas": [0.9, 0.99]}
    assert (three.phase, three.of, three.test, three.state) == ("confirm", "0001", {"top1": 0.75}, "running")
    assert (one.asked, one.steps_per_epoch, one.number) == (10.0, 5, 1)


def test_the_lines_have_the_names_that_others_read(store: Store) -> None:
    ledger = TrialLog(store)
    ledger.start()
    name = add(ledger)
    measure(ledger, name, 2)
    ledger.exploit(name, donor="0002", step=10, chosen={"optim.lr": 0.2})
    ledger.stop(name, step=10, why="slow")
    ledger.end(name, state="stopped", epochs=2, seconds=4)
    ledger.test(name, values={"top1": 0.5})
    ledger.end_search("budget")
    ledger.pause("sigint")
    lines = file_lines(store)
    assert [line["kind"] for line in lines] == [
        "start", "trial", "result", "exploit", "stop", "end", "test", "end_of_search", "pause",
    ]  # fmt: skip
    assert all(abs(line.pop("time") - time.time()) < 60 for line in lines)
    assert lines[1] == {
        "kind": "trial",
        "trial": "0001",
        "number": 1,
        "phase": "search",
        "chosen": {"optim.lr": 0.1, "model.name": "tiny_cnn"},
        "seed": None,
        "of": None,
        "asked": 10,
        "steps_per_epoch": 5,
    }
    facts = {"step": 10, "epoch": 2, "seconds": 4.0, "values": {"top1": 0.5}, "rung": None, "cutoff": None}
    assert lines[2] == {"kind": "result", "trial": "0001", **facts}
    assert lines[5] == {"kind": "end", "trial": "0001", "state": "stopped", "epochs": 2, "seconds": 4, "error": None}


def test_what_is_known_is_not_written_again(store: Store) -> None:
    for _ in range(2):  # in the same process, and in the next one
        ledger = TrialLog(store)
        if "0001" not in ledger.trials:
            add(ledger)
        for _ in range(2):
            measure(ledger, "0001", 1, 0.5)
            ledger.exploit("0001", donor="0002", step=5, chosen={"optim.betas": (0.9, 0.99)})
            ledger.stop("0001", step=5, why="slow")
            ledger.end("0001", state="stopped", epochs=1, seconds=2)
            ledger.test("0001", values={"top1": 0.5})
            ledger.end_search("trials")
    assert len(file_lines(store)) == 7
    assert not measure(ledger, "0001", 1, 0.9)
    assert [result.values["top1"] for result in ledger.trials["0001"].results] == [0.5]
    assert ledger.trials["0001"].value("top1", "max") is None  # measured with weights that are gone since the exploit
    with pytest.raises(ValueError, match="0001"):
        add(ledger)


def test_a_driver_that_was_killed_between_two_lines(store: Store) -> None:
    ledger = TrialLog(store)
    running, stopped = add(ledger, 1), add(ledger, 2)
    for name in (running, stopped):
        measure(ledger, name, 3)
    ledger.stop(stopped, step=15, why="slow")
    read = TrialLog(store).trials
    assert [(trial.state, trial.ended, trial.epochs, trial.seconds) for trial in read.values()] == [
        ("running", False, 3.0, 6.0),
        ("stopped", False, 3.0, 6.0),
    ]


def test_a_decision_to_stop_stands_whatever_the_end_says(store: Store) -> None:
    ledger = TrialLog(store)
    name = add(ledger)
    ledger.stop(name, step=5, why="slow")
    assert ledger.end(name, state="finished", epochs=10, seconds=20)
    for trial in (ledger.trials[name], TrialLog(store).trials[name]):
        assert (trial.state, trial.ended, trial.epochs) == ("stopped", True, 10.0)


@pytest.mark.faults
def test_a_line_torn_anywhere_costs_only_itself(store: Store) -> None:
    ledger = TrialLog(store)
    name = add(ledger)
    measure(ledger, name, 1)
    measure(ledger, name, 2)
    path = store.local_path(TrialLog.FILE)
    assert path is not None
    whole = path.read_bytes()
    last = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for end in range(last, len(whole) - 1, 5):
        path.write_bytes(whole[:end])
        read = TrialLog(store)
        assert [item.epoch for item in read.trials[name].results] == [1.0]
        assert measure(read, name, 3)
        assert [item.epoch for item in TrialLog(store).trials[name].results] == [1.0, 3.0]
    path.write_bytes(whole[:-1])  # all but the line end is a whole line
    assert measure(TrialLog(store), name, 3)
    assert [item.epoch for item in TrialLog(store).trials[name].results] == [1.0, 2.0, 3.0]


def test_a_line_that_stands_twice_counts_once(store: Store) -> None:
    ledger = TrialLog(store)
    ledger.start()
    name = add(ledger)
    measure(ledger, name, 1)
    ledger.end(name, state="finished", epochs=1, seconds=2)
    ledger.end_search("trials")
    lines = [line for line in store.read_lines(TrialLog.FILE) if line]
    store.write_bytes(TrialLog.FILE, "".join(f"{line}\n{line}\n" for line in lines).encode())
    read = TrialLog(store)
    assert read.trials == ledger.trials
    assert [line["kind"] for line in read.lines] == ["start", "trial", "result", "end", "end_of_search"]


def test_lines_of_a_later_version_are_kept_and_change_nothing(store: Store) -> None:
    ledger = TrialLog(store)
    name = add(ledger)
    foreign = {"kind": "pause", "trial": name, "until": "noon"}
    store.append_line(TrialLog.FILE, json.dumps(foreign))
    store.append_line(TrialLog.FILE, json.dumps({"kind": "result", "trial": name, "step": "five"}))
    store.append_line(TrialLog.FILE, json.dumps({"kind": "result", "trial": "0009", "step": 5, "epoch": 1}))
    store.append_line(TrialLog.FILE, "[1, 2]")
    read = TrialLog(store)
    measure(read, name, 1)
    assert [line["kind"] for line in read.lines] == ["trial", "pause", "result"]
    assert read.lines[1] == foreign
    assert store.read_lines(TrialLog.FILE)[1] == json.dumps(foreign)


def test_values_that_are_not_finite_are_strict_json_and_come_back(store: Store) -> None:
    ledger = TrialLog(store)
    name = add(ledger)
    values = {"loss": math.nan, "top1": 0.1, "top5": -math.inf}
    ledger.result(name, step=5, epoch=1, seconds=1, values=values, rung=1, cutoff=math.inf)
    measure(ledger, name, 2, 0.2)
    assert file_lines(store)[1]["values"] == {"loss": "nan", "top1": 0.1, "top5": "-inf"}
    for trial in (ledger.trials[name], TrialLog(store).trials[name]):
        result = trial.results[0]
        assert math.isnan(result.values["loss"]) and result.values["top5"] == -math.inf
        assert result.cutoff == math.inf
        assert trial.value("loss", "min") is None and trial.value("f1_macro", "max") is None
        assert (trial.value("top1", "max"), trial.value("top1", "min")) == (
            0.2,
            0.2,
        )  # 0.1 beside a loss of NaN is none


def test_an_exploit_gives_new_values_and_what_follows_is_measured_again(store: Store) -> None:
    ledger = TrialLog(store)
    name = add(ledger, chosen={"optim.lr": 0.1})
    for epoch in (1, 2, 3):
        measure(ledger, name, epoch, 0.1 * epoch)
    ledger.exploit(name, donor="0002", step=10, chosen={"optim.lr": 0.12})
    assert not measure(ledger, name, 2, 0.9)  # the donor's weights are of that step
    assert measure(ledger, name, 3, 0.6)
    assert not measure(ledger, name, 3, 0.7)
    for trial in (ledger.trials[name], TrialLog(store).trials[name]):
        assert (trial.chosen, trial.first_chosen) == ({"optim.lr": 0.12}, {"optim.lr": 0.1})
        assert trial.exploits == [Exploit("0002", 10, {"optim.lr": 0.12})]
        assert [item.values["top1"] for item in trial.results] == pytest.approx([0.1, 0.2, 0.3, 0.6])


def test_seconds_are_those_of_the_earlier_starts(store: Store) -> None:
    def line(kind: str, at: float, **rest: Any) -> None:
        store.append_line(TrialLog.FILE, json.dumps({"kind": kind, "time": at, **rest}))

    line("start", 1000.0, attempt=1)
    line("pause", 1030.0)
    line("start", 5000.0, attempt=2)  # nothing was counted while no driver ran
    line("pause", 5012.5)
    line("start", 9000.0, attempt=3)
    line("pause", 8000.0)  # a clock that was set back
    ledger = TrialLog(store)
    assert ledger.seconds == 42.5
    assert ledger.start() == 4
    assert ledger.seconds == 42.5


def test_a_search_that_goes_on_has_not_ended(store: Store) -> None:
    ledger = TrialLog(store)
    ledger.start()
    ledger.end_search("budget")
    assert TrialLog(store).end_reason == "budget"
    ledger.start()
    assert ledger.end_reason is None and TrialLog(store).end_reason is None
    assert ledger.end_search("trials")


def test_a_line_that_cannot_be_written_is_not_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = TrialLog(store)
    name = add(ledger)

    def full(*args: Any, **options: Any) -> None:
        raise CheckpointError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append_line", full)
        with pytest.raises(CheckpointError):
            measure(ledger, name, 1)
    assert ledger.trials[name].results == []
    assert measure(ledger, name, 1)


def test_a_trial_that_was_never_added_is_an_error(store: Store) -> None:
    ledger = TrialLog(store)
    with pytest.raises(KeyError):
        measure(ledger, "0001", 1)
    assert not store.exists(TrialLog.FILE)


def test_ten_thousand_lines_are_read_and_kept_small(store: Store) -> None:
    trials = [
        {"kind": "trial", "trial": trial_id(number), "number": number, "phase": "search", "chosen": {"optim.lr": 0.1}}
        | {"seed": None, "of": None, "asked": 100, "steps_per_epoch": 5, "time": 1.0}
        for number in range(1, 101)
    ]
    names = ("top1", "top5", "loss", "f1_macro", "f1_weighted", "precision_macro")
    results = [
        {"kind": "result", "trial": trial["trial"], "step": epoch, "epoch": epoch, "seconds": 1.0, "time": 1.0}
        | {"values": dict.fromkeys(names, 0.1 + epoch), "rung": None, "cutoff": None}
        for epoch in range(1, 101)
        for trial in trials
    ]
    text = "".join(json.dumps(line) + "\n" for line in trials + results)
    store.write_bytes(TrialLog.FILE, text.encode())
    ledger = TrialLog(store)
    assert sum(len(trial.results) for trial in ledger.trials.values()) == 10_000
    store.write_bytes(TrialLog.FILE, "".join(text.splitlines(keepends=True)[:1100]).encode())
    tracemalloc.start()
    ledger = TrialLog(store)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(len(trial.results) for trial in ledger.trials.values()) == 1000
    assert kept / 1000 < 1500  # bytes per result of six metrics, and a tenth of its trial
