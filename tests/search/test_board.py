"""Searches without training: whole, and cut off after each line of their ledger."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from harness.play import Play

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Parameter, Space
from raycls.errors import CheckpointError
from raycls.run.storage.store import Store
from raycls.search.results import best
from raycls.search.trials import TrialLog

_SPACE = Space(
    (Parameter("optim.lr", "loguniform", low=1e-3, high=1.0), Parameter("model.args.width", "choice", (4, 8, 16)))
)
_FINITE = Space((Parameter("optim.lr", "choice", (0.001, 0.01, 0.1, 0.5)), Parameter("b", "choice", (1, 2))))
_ASHA = {"name": "asha", "grace": "1ep", "reduction": 3}
_SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": _ASHA,
    "brackets": {**_ASHA, "brackets": 2},
    "steps": {**_ASHA, "grace": "5st"},
    "share": {**_ASHA, "grace": "12%"},
    "time": {**_ASHA, "grace": "10s"},
    "median": {"name": "median", "grace": "2ep"},
    "pbt": {"name": "pbt", "interval": "2ep", "quantile": 0.34},
    "none": {"name": "none"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of lines: none of them has to survive a loss of power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def config(scheduler: str, **options: Any) -> SearchConfig:
    return SearchConfig.model_validate({"scheduler": _SCHEDULERS[scheduler], "trials": 7, "seed": 3, **options})


def grows(chosen: Mapping[str, Any]) -> float:
    """Best at a rate of 0.1; above 0.7 it is no number at all."""
    rate = chosen["optim.lr"]
    return math.nan if rate > 0.7 else 0.1 - 0.02 * abs(math.log10(rate) + 1) + 1e-4 * chosen.get("model.args.width", 0)


def fails(chosen: Mapping[str, Any]) -> float:
    """Small rates lead to an error."""
    if chosen["optim.lr"] < 0.05:
        raise ArithmeticError("out of memory")
    return grows(chosen)


def cut(whole: Play, lines: int, folder: Path, torn: bool = False) -> Path:
    """A copy of the search folder as a kill left it after so many lines, the next of them torn in the middle."""
    texts = whole.store.read_lines(TrialLog.FILE)
    rest = texts[lines][: len(texts[lines]) // 2] if torn else ""
    shutil.rmtree(folder, ignore_errors=True)
    Store(folder).write_bytes(TrialLog.FILE, ("".join(f"{text}\n" for text in texts[:lines]) + rest).encode())
    return folder


@pytest.mark.parametrize(
    ("scheduler", "algorithm", "space", "trials"),
    [
        *((scheduler, "random", _SPACE, 7) for scheduler in _SCHEDULERS),
        ("asha", "grid", _FINITE, 20),
        ("none", "random", _FINITE, 20),
        ("pbt", "optuna", _SPACE, 5),
        ("asha", "optuna", _SPACE, 13),  # the first ten are random
    ],
)
def test_a_search_that_was_killed_decides_as_one_that_was_not(
    tmp_path: Path, scheduler: str, algorithm: str, space: Space, trials: int
) -> None:
    search = config(scheduler, algorithm=algorithm, trials=trials)
    whole = Play(tmp_path / "whole", space, search, grows).run()
    count = len(whole.ledger.lines)
    assert len(whole.trials) == (8 if space is _FINITE else trials)
    slow = trials == 13 or (space, algorithm) == (_FINITE, "random")  # suggestions: there, a part of the lines will do
    for lines in range(0, count, 5 if slow else 1):
        folder = cut(whole, lines, tmp_path / "cut", torn=lines % 2 == 1)
        known = TrialLog(Store(folder))
        again = Play(folder, space, search, grows)
        held = {
            (trial.number, result.rung): result.values["top1"]
            for trial in known.trials.values()
            for result in trial.results
            if result.rung is not None
        }
        rungs = {
            (number, rung): value for _, rung, values in again.board.scheduler.rungs for number, value in values.items()
        }
        assert rungs == pytest.approx(held, nan_ok=True)
        again.run()
        assert repr(again.decided) == repr(whole.decided), f"cut after line {lines}"  # in words: nan is not nan
        assert repr(again.board.scheduler.rungs) == repr(whole.board.scheduler.rungs)
        assert not {name for name, trial in known.trials.items() if trial.state != "running"} & {*again.handed}
        assert max(Counter(again.handed).values(), default=1) == 1


@pytest.mark.faults
@pytest.mark.parametrize(("scheduler", "algorithm"), [("asha", "random"), ("none", "grid"), ("pbt", "random")])
def test_a_trial_whose_line_is_lost_is_started_again(tmp_path: Path, scheduler: str, algorithm: str) -> None:
    space = _FINITE if algorithm == "grid" else _SPACE
    search = config(scheduler, algorithm=algorithm)
    whole = Play(tmp_path / "whole", space, search, grows).run()
    texts = whole.store.read_lines(TrialLog.FILE)
    for trial in whole.trials:
        (lost,) = (index for index, text in enumerate(texts) if f'"number":{trial.number},' in text.replace(" ", ""))
        damaged = [*texts[:lost], texts[lost][: len(texts[lost]) // 2], *texts[lost + 1 :]]
        Store(tmp_path / "cut").write_bytes(TrialLog.FILE, "\n".join(damaged).encode())
        before = TrialLog(Store(tmp_path / "cut"))
        assert len(before.trials) == 6
        again = Play(tmp_path / "cut", space, search, grows)
        assert not again.board.is_played
        again.run()
        assert again.board.is_played
        assert again.handed == [trial.id]
        assert sorted(item.number for item in again.trials) == list(range(1, 8))
        mended = again.ledger.trials[trial.id]
        assert (mended.first_chosen, mended.ended) == (trial.first_chosen, True)
        others = {name: item for name, item in before.trials.items() if not item.exploits}
        assert {name: again.ledger.trials[name].results for name in others} == {
            name: item.results for name, item in others.items()
        }


@pytest.mark.faults
def test_a_disk_that_is_full_costs_nothing_once_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "none", folder], capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    try:
        whole = Play(tmp_path / "whole", _SPACE, config("asha", trials=12), grows).run()
        with pytest.raises(CheckpointError, match="free some space"):
            Play(folder / "search", _SPACE, config("asha", trials=12), grows).run()
        known = TrialLog(Store(folder / "search")).lines
        assert 10 < len(known) < len(whole.ledger.lines)
        subprocess.run(["mount", "-o", "remount,size=1m", folder], check=True)
        again = Play(folder / "search", _SPACE, config("asha", trials=12), grows).run()
        assert repr(again.decided) == repr(whole.decided)
        assert again.ledger.lines[: len(known)] == known
    finally:
        subprocess.run(["umount", folder], check=True)


def test_these_searches_decide_something(tmp_path: Path) -> None:
    """What the test above repeats must not be nothing."""
    plays = {name: Play(tmp_path / name, _SPACE, config(name), grows).run() for name in _SCHEDULERS}
    states = {name: Counter(trial.state for trial in play.trials) for name, play in plays.items()}
    for name in ("asha", "brackets", "steps", "share", "time", "median"):
        assert states[name]["stopped"] >= 1 and states[name]["finished"] >= 1, name
    assert states["none"] == {"finished": 7}
    assert sum(len(trial.exploits) for trial in plays["pbt"].trials) >= 3
    # The rungs are the same ones in whichever unit: 1 epoch, 5 steps, 12 per cent of 9 epochs (1.08), and 10 seconds.
    assert [trial.state for trial in plays["asha"].trials] == [trial.state for trial in plays["steps"].trials]
    assert [trial.state for trial in plays["asha"].trials] == [trial.state for trial in plays["time"].trials]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
def test_no_trial_is_lost_and_none_runs_twice(tmp_path: Path, scheduler: str, seed: int) -> None:
    search = config(scheduler, trials=9)
    whole = Play(tmp_path / "whole", _SPACE, search, fails, concurrency=3, seed=seed).run()
    folder = cut(whole, len(whole.ledger.lines) * seed // 12, tmp_path / "cut", torn=True)
    known = TrialLog(Store(folder))
    again = Play(folder, _SPACE, search, fails, concurrency=3, seed=seed + 1).run()
    for play in (whole, again):
        assert [trial.number for trial in play.trials] == list(range(1, 10))
        assert all(trial.ended for trial in play.trials)
        assert max(Counter(play.handed).values(), default=1) == 1
        for trial in play.trials:
            steps = [result.step for result in trial.results]
            assert steps == list(range(5, 5 * len(steps) + 1, 5))
            assert trial.state != "finished" or len(steps) == 9
    chosen = [trial.first_chosen for trial in whole.trials]  # random values are those of the number, whoever is first
    assert [trial.first_chosen for trial in again.trials] == chosen
    for name, trial in known.trials.items():
        assert again.ledger.trials[name].results[: len(trial.results)] == trial.results
        assert trial.state == "running" or again.ledger.trials[name].state == trial.state


def test_a_board_alone_writes_nothing(tmp_path: Path) -> None:
    whole = Play(tmp_path / "whole", _SPACE, config("asha"), grows).run()
    for lines in range(len(whole.ledger.lines)):
        folder = cut(whole, lines, tmp_path / "cut")
        before = Store(folder).read_bytes(TrialLog.FILE)
        Play(folder, _SPACE, config("asha"), grows)
        assert Store(folder).read_bytes(TrialLog.FILE) == before


def test_a_pause_between_two_starts_is_not_time_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    whole = Play(tmp_path / "whole", _SPACE, config("asha"), grows).run()
    stop = next(index for index, line in enumerate(whole.ledger.lines) if line["kind"] == "stop")
    for lines in (stop, stop + 1):  # killed before the line, and between it and the end of the trial
        folder = cut(whole, lines, tmp_path / "cut")
        now[0] = 1e6
        play = Play(folder, _SPACE, config("asha"), grows)
        play.board.start()
        assert TrialLog(Store(folder)).seconds == 0


def test_a_result_that_comes_too_late_is_nobodys(tmp_path: Path) -> None:
    play = Play(tmp_path / "search", _SPACE, config("asha"), grows).run()
    stopped = next(trial for trial in play.trials if trial.state == "stopped")
    rungs, results = repr(play.board.scheduler.rungs), list(stopped.results)
    move = play.board.judge(stopped.id, step=45, epoch=9, seconds=1, values={"top1": 1.0})
    assert (move.stop, move.why) == (True, stopped.why)
    assert (repr(play.board.scheduler.rungs), stopped.results) == (rungs, results)
    again = Play(tmp_path / "search", _SPACE, config("asha"), grows)
    assert again.board.judge(stopped.id, step=45, epoch=9, seconds=1, values={"top1": 1.0}).stop


def test_a_known_result_gets_its_old_answer(tmp_path: Path) -> None:
    play = Play(tmp_path / "search", _SPACE, config("asha"), grows)
    play.board.start()
    task = play.board.next()
    assert task is not None
    facts = {"step": 5, "epoch": 1.0, "seconds": 1.0}
    for value in (0.5, 0.1):  # the second one is what a trial that was started again says
        assert not play.board.judge(task.trial, **facts, values={"top1": value}).stop
    assert [result.values for result in play.trials[0].results] == [{"top1": 0.5}]


def test_the_end_of_a_trial_is_not_stopped(tmp_path: Path) -> None:
    play = Play(tmp_path / "search", _SPACE, config("asha", trials=30), grows, epochs=3).run()  # rungs: 1
    assert {trial.epochs for trial in play.trials} == {1, 3}
    assert {trial.state for trial in play.trials if trial.epochs == 3} == {"finished"}
    early = Play(tmp_path / "early", _SPACE, config("asha", trials=30), grows, epochs=1).run()  # no rung at all
    assert {trial.state for trial in early.trials} == {"finished"}


def test_the_target_ends_all_trials(tmp_path: Path) -> None:
    search = config("none", trials=30, target=0.5)
    play = Play(tmp_path / "search", _SPACE, search, grows, concurrency=3, seed=1).run()
    assert (play.board.over, play.ledger.end_reason) == ("target", "target")
    assert len(play.trials) < 30
    assert all(trial.ended for trial in play.trials)
    winner = play.ledger.trials[str(play.winner)]
    assert (winner.value("top1", "max") or 0) >= 0.5
    hit = max(index for index, line in enumerate(play.ledger.lines) if line["kind"] == "result")
    for lines in range(hit + 1, len(play.ledger.lines)):  # killed after the target, before all ends were written
        again = Play(cut(play, lines, tmp_path / "cut"), _SPACE, search, grows, concurrency=3).run()
        assert (again.handed, repr(again.decided)) == ([], repr(play.decided))
    further = Play(tmp_path / "search", _SPACE, config("none", trials=12, target=0.95), grows).run()
    assert (further.board.over, len(further.trials)) == ("trials", 12)
    lower = Play(tmp_path / "search", _SPACE, config("none", trials=40, target=0.2), grows).run()
    assert (lower.board.over, lower.handed) == ("target", [])


def test_in_mode_min_the_target_is_below(tmp_path: Path) -> None:
    search = config("asha", trials=4, target=-1.5)
    play = Play(tmp_path / "search", _SPACE, search, lambda chosen: -grows(chosen), mode="min").run()
    assert play.board.over == "trials"
    value = min(result.values["top1"] for trial in play.trials for result in trial.results)
    lower = Play(tmp_path / "search", _SPACE, config("asha", trials=4, target=value), grows, mode="min")
    assert lower.board.over == "target"


def _broken(chosen: Mapping[str, Any]) -> float:
    raise ArithmeticError("no such operator")


@pytest.mark.parametrize(("trials", "started"), [(20, 3), (2, 2), (1, 1)])
def test_a_search_of_failures_alone_ends_as_one(tmp_path: Path, trials: int, started: int) -> None:
    play = Play(tmp_path / "search", _SPACE, config("asha", trials=trials), _broken).run()
    assert (play.board.over, len(play.trials)) == ("failed", started)
    assert {trial.error for trial in play.trials} == {"no such operator"}
    again = Play(tmp_path / "search", _SPACE, config("asha", trials=trials), _broken).run()
    assert (again.board.over, again.handed) == ("failed", [])


def test_a_search_waits_for_those_that_run_before_it_gives_up(tmp_path: Path) -> None:
    def start(folder: Path) -> tuple[Play, list[str]]:
        play = Play(folder, _SPACE, config("none", trials=8), grows, concurrency=5)
        play.board.start()
        return play, [task.trial for _ in range(5) if (task := play.board.next())]

    def fail(play: Play, *names: str) -> str:
        for name in names:
            play.board.end(name, state="failed", epochs=0, seconds=0, error="out of memory")
        return play.board.over

    play, names = start(tmp_path / "all")
    assert fail(play, *names[:4]) == ""
    later = play.board.next()
    assert later is not None  # it was started when three had failed: nobody waits for it
    again = Play(tmp_path / "all", _SPACE, config("none", trials=8), grows)
    again.board.start()
    assert (again.board.over, fail(again, names[4])) == ("", "failed")

    play, names = start(tmp_path / "one")
    play.board.judge(names[4], step=5, epoch=1, seconds=1, values={"top1": 0.1})
    assert fail(play, *names[:4], play.board.next().trial, play.board.next().trial) == ""  # type: ignore[union-attr]


def test_a_search_is_played_when_no_trial_runs_and_none_is_to_come(tmp_path: Path) -> None:
    board = Play(tmp_path, _FINITE, config("none", trials=2), grows).board
    board.start()
    assert not board.is_played
    first, second = board.next(), board.next()
    assert first is not None and second is not None
    for task in (first, second):
        assert not board.is_played
        board.end(task.trial, state="failed" if task is first else "finished", epochs=9, seconds=1)
    assert (board.is_played, board.over) == (True, "trials")  # though nobody asked for a third one
    more = Play(tmp_path, _FINITE, config("none", trials=3), grows).board
    assert not more.is_played
    few = Space((Parameter("optim.lr", "choice", (0.01, 0.1)),))
    board = Play(tmp_path / "few", few, config("none", trials=9, algorithm="grid"), grows).run().board
    assert (board.is_played, board.over) == (True, "exhausted")


def test_an_exhausted_space_ends_the_search_and_more_trials_go_on(tmp_path: Path) -> None:
    grid = {"algorithm": "grid", "trials": 5}
    play = Play(tmp_path / "search", _FINITE, config("asha", **grid), grows).run()
    assert (play.board.over, len(play.trials)) == ("trials", 5)
    more = Play(tmp_path / "search", _FINITE, config("asha", **{**grid, "trials": 20}), grows).run()
    assert (more.board.over, more.handed) == ("exhausted", ["0006", "0007", "0008"])
    straight = Play(tmp_path / "straight", _FINITE, config("asha", **{**grid, "trials": 20}), grows).run()
    assert repr(more.decided) == repr(straight.decided)
    fewer = Play(tmp_path / "search", _FINITE, config("asha", **{**grid, "trials": 3}), grows).run()
    assert (fewer.handed, len(fewer.trials)) == ([], 8)


def test_an_exploit_is_kept_and_recorded_once(tmp_path: Path) -> None:
    kept: list[tuple[str, int, str, int]] = []

    def keep(*what: Any) -> str:
        kept.append(what)
        return f"sha {len(kept)}"

    play = Play(tmp_path / "search", _SPACE, config("pbt"), grows, keep=keep).run()
    exploits = [line for line in play.ledger.lines if line["kind"] == "exploit"]
    assert len(exploits) >= 3
    numbers: Counter[str] = Counter()
    assert [line["weights"] for line in exploits] == [f"sha {number}" for number in range(1, len(kept) + 1)]
    for line, (donor, step, trial, count) in zip(exploits, kept, strict=True):
        numbers[trial] += 1
        assert (line["donor"], line["step"], line["trial"]) == (donor, step, trial)
        assert count == numbers[trial]  # 1, 2, ...: no two of a trial share a folder
        assert any(result.step == step for result in play.ledger.trials[donor].results)
    for trial in play.trials:
        assert trial.results[-1].epoch == 9
        assert (trial.chosen == trial.first_chosen) == (not trial.exploits)


def test_without_its_checkpoint_there_is_no_exploit(tmp_path: Path) -> None:
    play = Play(tmp_path / "search", _SPACE, config("pbt"), grows, keep=lambda *what: "").run()
    assert not any(trial.exploits for trial in play.trials)
    assert {trial.state for trial in play.trials} == {"finished"}


def test_confirmation_repeats_a_trial_on_other_seeds_once(tmp_path: Path) -> None:
    def tasks(play: Play) -> list[Any]:
        return [play.board.confirm("0003", seed) for seed in (1, 2)]

    play = Play(tmp_path / "search", _SPACE, config("asha"), grows).run()
    first, second = tasks(play)
    assert (first.trial, first.number, first.seed, first.phase) == ("0003-s1", 3, 1, "confirm")
    assert (second.trial, second.tested, second.chosen) == ("0003-s2", False, play.ledger.trials["0003"].chosen)
    for epoch in range(1, 10):  # the worst there is: a confirmation is never stopped, and tells the rungs nothing
        facts = {"step": 5 * epoch, "epoch": epoch, "seconds": epoch}
        assert not play.board.judge("0003-s1", **facts, values={"top1": 0.0}).stop
    play.ledger.test("0003-s1", values={"top1": 0.6})

    again = Play(tmp_path / "search", _SPACE, config("asha"), grows)
    assert repr(again.board.scheduler.rungs) == repr(play.board.scheduler.rungs)
    again.board.start()
    assert again.board.next() is None  # what is confirmed is no trial of the search
    first, second = tasks(again)
    assert (first.tested, second.tested) == (True, False)
    again.board.end("0003-s1", state="finished", epochs=9, seconds=9)
    assert [task and task.trial for task in tasks(again)] == [None, "0003-s2"]
    assert len(again.board.searched) == 7
    again.board.end("0003-s2", state="failed", epochs=0, seconds=0, error="lost")
    assert tasks(again) == [None, None]


def test_a_trial_with_a_loss_that_is_not_finite_is_judged_as_without_a_value(tmp_path: Path) -> None:
    board = Play(tmp_path, _FINITE, config("asha", target=0.9), grows).board
    board.start()
    first, second = board.next(), board.next()
    assert first is not None and second is not None
    facts = {"step": 5, "epoch": 1.0, "seconds": 1.0}
    assert not board.judge(first.trial, **facts, values={"top1": 0.1, "loss": 2.0}).stop
    assert board.judge(second.trial, **facts, values={"top1": 0.95, "loss": math.nan}).stop
    assert board.over == "", "0.95 beside NaN reaches no target"
    for trial in (first, second):
        board.end(trial.trial, state="finished", epochs=9, seconds=9)
    winner = best(board.ledger, "top1", "max")
    assert winner is not None and winner.id == first.trial
