from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.streams import Terminal

from raycls.progress import Progress
from raycls.run.storage.store import Store
from raycls.screen.search import SearchDisplay
from raycls.screen.search_text import (
    chosen_text,
    confirm_lines,
    end_text,
    front_lines,
    progress_text,
    rows,
    search_lines,
    start_text,
    stop_text,
)
from raycls.search.front import Priced
from raycls.search.trials import TrialLog, trial_id


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLog:
    return TrialLog(Store(tmp_path / "search"))


def trial(ledger: TrialLog, number: int, state: str | None, values: list[float], **rest: Any) -> str:
    """A trial of ten epochs with a top1 after each of the first ones."""
    facts = {"chosen": {"optim.lr": 0.123456 / number, "model.name": "tiny"}, "asked": 10, "steps_per_epoch": 5, **rest}
    name = ledger.add_trial(trial_id(number, rest.get("seed")), number=number, **facts).id
    for epoch, value in enumerate(values, start=1):
        ledger.result(name, step=5 * epoch, epoch=epoch, seconds=epoch, values={"top1": value, "loss": 1 - value})
    if state:
        error = "out of memory\nTraceback: ..." if state == "failed" else None
        ledger.end(name, state=state, epochs=len(values), seconds=1.0, error=error)
    return name


def example(ledger: TrialLog) -> None:
    """Three finished, one running, two stopped, one failed: 3 x 10 + 2 + 3 + 1 + 4 = 40 of 70 epochs, 7 + 6 saved."""
    trial(ledger, 1, "finished", [0.5] * 10)
    trial(ledger, 2, "stopped", [0.4, 0.6, 0.61])
    trial(ledger, 3, "finished", [0.5, *[0.9] * 9])
    trial(ledger, 4, "failed", [0.3])
    trial(ledger, 5, None, [0.1, 0.2])
    trial(ledger, 6, "stopped", [0.2, 0.3, 0.3, 0.3])
    trial(ledger, 7, "finished", [0.7] * 10)


def confirm(ledger: TrialLog, number: int, scores: dict[int, float | None]) -> None:
    for seed, top1 in scores.items():
        name = trial(ledger, number, "finished", [0.9], phase="confirm", of=trial_id(number), seed=seed)
        if top1 is not None:
            ledger.test(name, values={"top1": top1})


def test_the_end_of_a_search(ledger: TrialLog) -> None:
    example(ledger)
    assert search_lines(ledger, "top1", "max") == [
        "trials     7: 1 running, 3 finished, 2 stopped, 1 failed",
        "epochs     40 run of 70 asked (57%): stopping early saved 13 (19%)",
        "best       trial  state     epochs    top1  values",
        "           0003   finished   10/10  0.9000  optim.lr=0.04115 model.name=tiny",
        "           0007   finished   10/10  0.7000  optim.lr=0.01764 model.name=tiny",
        "           0001   finished   10/10  0.5000  optim.lr=0.1235 model.name=tiny",
        "           0002   stopped     3/10  0.6100  optim.lr=0.06173 model.name=tiny",
        "           0006   stopped     4/10  0.3000  optim.lr=0.02058 model.name=tiny",
        "winner     0003: optim.lr=0.04115 model.name=tiny",
        "           validation top1 0.9000, optimistic: selected by this value from 6 trials",
    ]


def test_the_front_of_a_search(ledger: TrialLog) -> None:
    trial(ledger, 1, "stopped", [0.5, 0.75], chosen={"model.args.blocks": [1, 1]})
    trial(ledger, 12, "finished", [0.9] * 10, chosen={"model.args.blocks": [2, 2]})
    cheap, dear = ledger.trials["0001"], ledger.trials["0012"]
    assert front_lines([Priced(cheap, 950, 8_000, 0.75), Priced(dear, 10_500, 1_250_000, 0.9)], 7, "top1", "max") == [
        "front      of 7 trials: no other is as good for fewer FLOPs, or better for as many",
        "           trial      FLOPs  parameters  epochs    top1  values",
        "           0001       8,000         950    2/10  0.7500  model.args.blocks=[1, 1]",
        "           0012   1,250,000      10,500   10/10  0.9000  model.args.blocks=[2, 2]",
    ]


def test_a_winner_that_was_stopped_says_so(ledger: TrialLog) -> None:
    trial(ledger, 1, "stopped", [0.5, 0.75], chosen={})
    assert search_lines(ledger, "loss", "min")[-2:] == [
        "winner     0001, stopped at epoch 2 of 10",
        "           validation loss 0.25, optimistic: selected by this value from 1 trial",
    ]


def test_searches_without_a_winner(ledger: TrialLog) -> None:
    assert search_lines(ledger, "top1", "max") == ["trials     0", "winner     none: no trial gave a top1"]
    trial(ledger, 1, "failed", [math.nan])
    assert search_lines(ledger, "top1", "max")[1:] == [
        "epochs     1 run of 10 asked (10%)",  # what a failure cut off was not saved
        "winner     none: no trial gave a top1",
    ]
    trial(ledger, 2, None, [0.5])
    assert search_lines(ledger, "top1", "max")[-1] == "winner     none: no trial finished, and none was stopped"


def test_the_confirmation_says_n_interval_difference_and_that_the_test_split_was_used_once(ledger: TrialLog) -> None:
    example(ledger)
    confirm(ledger, 3, {1: 0.7, 2: 0.8, 3: 0.9})
    confirm(ledger, 7, {1: 0.65, 2: 0.75, 3: None})
    # half of the interval of three values 0.1 apart: 4.302653 * 0.1 / sqrt(3) = 0.2484; of two: 12.7062 * 0.05
    assert confirm_lines(ledger, "top1", "max") == [
        "confirm    test top1; the test split was scored once per model",
        "           0003: n 3, mean 0.8000, 95 % interval 0.5516 to 1.0484",
        "           0007: n 2, mean 0.7000, 95 % interval 0.0647 to 1.3353 (1 of 3 gave no test value)",
        "           0003 - 0007, seed by seed: n 2, mean +0.0500, 95 % interval +0.0500 to +0.0500",
    ]
    assert search_lines(ledger, "top1", "max")[-4:] == confirm_lines(ledger, "top1", "max")


def test_a_difference_that_may_be_none_and_seeds_that_are_too_few(ledger: TrialLog) -> None:
    example(ledger)
    confirm(ledger, 3, {1: 0.7, 2: 0.8})
    confirm(ledger, 7, {1: 0.8, 2: 0.7})
    lines = confirm_lines(ledger, "top1", "max")
    assert lines[-1] == "           the interval holds 0: on 2 seeds the two cannot be told apart"
    trial(ledger, 9, "finished", [0.95])  # a trial that came later won: it and the old winner are the pair of now
    confirm(ledger, 9, {2: 0.7})
    lines = confirm_lines(ledger, "top1", "max")
    assert lines[1] == "           0009: n 1, mean 0.7000, no interval from one seed"
    assert lines[2].startswith("           0003: n 2") and "0007" not in "".join(lines)


def test_a_search_without_confirmation_has_no_block_of_it(ledger: TrialLog) -> None:
    example(ledger)
    assert confirm_lines(ledger, "top1", "max") == []


def test_events(ledger: TrialLog) -> None:
    example(ledger)
    trial(ledger, 8, "failed", [])
    trials = ledger.trials
    assert start_text(trials["0001"]) == "trial 0001 started: optim.lr=0.1235 model.name=tiny"
    assert stop_text(trials["0002"], "top1", "max", 0.72) == (
        "trial 0002 stopped at epoch 3 of 10: top1 0.6100 below 0.7200"
    )
    assert stop_text(trials["0002"], "loss", "min", 0.28) == (
        "trial 0002 stopped at epoch 3 of 10: loss 0.39 above 0.28"
    )
    assert end_text(trials["0008"], "top1", "max") == "trial 0008 failed at epoch 0 of 10: out of memory"
    assert stop_text(trials["0002"], "top1", "max", None) == "trial 0002 stopped at epoch 3 of 10: top1 0.6100"
    assert end_text(trials["0003"], "top1", "max") == "trial 0003 finished at epoch 10 of 10: top1 0.9000"
    assert end_text(trials["0004"], "top1", "max") == "trial 0004 failed at epoch 1 of 10: top1 0.3000, out of memory"


def test_chosen_values_are_short_yaml() -> None:
    chosen = {"optim.lr": 0.000123456, "optim.nesterov": False, "model.args": {"width": 8}, "loss": None, "n": 12}
    assert chosen_text(chosen) == "optim.lr=0.0001235 optim.nesterov=false model.args={width: 8} loss=null n=12"


def test_running_trials_stand_first_then_the_best(ledger: TrialLog) -> None:
    example(ledger)
    assert [row.trial for row in rows(ledger, "top1", "max")] == [
        "0005",
        "0003",
        "0007",
        "0002",
        "0001",
        "0004",
        "0006",
    ]
    assert [row.trial for row in rows(ledger, "top1", "max", most=2)] == ["0005", "0003"]
    first = rows(ledger, "top1", "max")[0]
    assert (first.state, first.epochs, first.value) == ("running", "2/10", "0.2000")


def test_progress_in_one_line(ledger: TrialLog) -> None:
    assert progress_text(ledger, "top1", "max") == "0 trials"
    trial(ledger, 1, None, [])
    assert progress_text(ledger, "top1", "max") == "1 trial: 1 running"
    trial(ledger, 2, "stopped", [0.4])
    trial(ledger, 3, "finished", [0.3])
    assert progress_text(ledger, "top1", "max") == "3 trials: 1 running, 1 finished, 1 stopped; best 0002 top1 0.4000"


def test_plain_lines_are_the_header_the_events_and_the_end() -> None:
    stream = io.StringIO()
    with SearchDisplay(stream) as display:
        display.start(["search     runs/s", "trials     7"])
        display.event("trial 0003 stopped [early]")
        display.finish(["winner     0001"])
        display.abandon()
    assert stream.getvalue() == "search     runs/s\ntrials     7\ntrial 0003 stopped [early]\nwinner     0001\n"


def test_a_quiet_search_says_now_and_then_that_it_goes_on(ledger: TrialLog) -> None:
    trial(ledger, 1, None, [])
    now = [0.0]
    stream = io.StringIO()
    display = SearchDisplay(stream, 30.0, clock=lambda: now[0])
    for second in range(0, 100, 5):  # an event at 40 s: the next line about all trials is due at 70 s
        now[0] = float(second)
        display.update(ledger, "top1", "max")
        if second == 40:
            display.event("trial 0001 ...")
    assert stream.getvalue().splitlines() == ["1 trial: 1 running", "trial 0001 ...", "1 trial: 1 running"]


def test_a_search_says_what_goes_on_where_no_trial_has_news(ledger: TrialLog) -> None:
    now, stream = [0.0], io.StringIO()
    display = SearchDisplay(stream, 30.0, clock=lambda: now[0])
    display.tell(Progress("starting Ray"))
    now[0] = 31.0
    display.tick()
    trial(ledger, 1, None, [])
    display.update(ledger, "top1", "max")
    display.tell(Progress("training trials"))
    now[0] = 50.0
    display.tick()
    now[0] = 62.0
    display.tick()
    assert stream.getvalue().splitlines() == ["starting Ray for 31 s", "1 trial: 1 running; training trials for 31 s"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")
    yield Terminal()


def test_the_live_table_shows_the_trials_and_gives_the_terminal_back(terminal: Terminal, ledger: TrialLog) -> None:
    example(ledger)
    for number in range(8, 40):
        trial(ledger, number, "stopped", [0.01])
    with SearchDisplay(terminal) as display:
        display.start(["search     runs/s"])
        display.update(ledger, "top1", "max")
        display._region.refresh()
        table = terminal.getvalue()
        display.event("[not markup]")
        display.finish(["winner     0003"])
    for part in ("search     runs/s", "0003    finished", "running", "optim.lr=0.04115", "19 not shown"):
        assert part in table
    assert table.index("0005") < table.index("0003") < table.index("0002")
    text = terminal.getvalue()
    assert "[not markup]" in text and text.rstrip().endswith("winner     0003")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0  # the cursor is visible again


def test_what_follows_the_end_of_a_search_is_shown_without_its_table(terminal: Terminal, ledger: TrialLog) -> None:
    example(ledger)
    with SearchDisplay(terminal) as display:
        display.update(ledger, "top1", "max")
        display.finish(["winner     0003"])
        before = len(terminal.getvalue())
        display.tell(Progress("leaving Ray"))
    after = terminal.getvalue()[before:]
    assert "leaving Ray" in after and "running" not in after
