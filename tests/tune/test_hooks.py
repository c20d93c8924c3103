"""The board's decisions in Tune's words, with a controller that only keeps lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness.play import STEPS, Play
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Parameter, Space
from raycls.tune.hooks import Groups, Judge, Lost, Supply

_SPACE = Space((Parameter("optim.lr", "uniform", low=0.0, high=1.0),))


class Controller:
    """Tune's, with one place for all trials."""

    def __init__(self, play: Play, begin: bool = True) -> None:
        self.trials: list[Any] = []
        if begin:
            play.board.start()
            while task := play.board.next():
                self.add({"task": json.dumps(asdict(task))})

    def add(self, config: dict[str, Any], name: str = "") -> None:
        trial = SimpleNamespace(status=Trial.PENDING, config=config, name=name)
        trial.set_config = lambda new: setattr(trial, "config", new)
        self.trials.append(trial)

    def get_trials(self) -> list[Any]:
        return self.trials

    def pause_trial(self, trial: Any, should_checkpoint: bool) -> None:
        trial.status = Trial.PAUSED


def judge_of(play: Play, full: Callable[[str, str], None] = lambda name, error: None, most: int = 1) -> Judge:
    return Judge(
        play.board,
        Groups(),
        tick=lambda: None,
        changed=lambda name, move: None,
        interrupted=lambda: False,
        donated=lambda task: "donor",
        full=full,
        most=lambda: most,
    )


def evaluation(epoch: int, value: float) -> dict[str, Any]:
    facts = {"step": epoch * STEPS, "epoch": epoch, "seconds": epoch, "values": {"top1": value}}
    return {"record": json.dumps({"kind": "evaluation", **facts})}


def test_a_population_takes_turns_at_one_place(tmp_path: Path) -> None:
    search = SearchConfig.model_validate({"trials": 3, "scheduler": {"name": "pbt", "interval": "2ep"}})
    play = Play(tmp_path, _SPACE, search, lambda chosen: 0.0, epochs=6)
    controller, judge = Controller(play), judge_of(play)
    order: list[int] = []
    epochs: Counter[int] = Counter()
    for _ in range(9):
        trial: Any = judge.choose_trial_to_run(controller)
        number = json.loads(trial.config["task"])["number"]
        trial.status = Trial.RUNNING
        while trial.status == Trial.RUNNING:
            order.append(number)
            epochs[number] += 1
            answer = judge.on_trial_result(controller, trial, evaluation(epochs[number], 0.5))
            if epochs[number] == 6:
                trial.status = Trial.TERMINATED
                break
            assert (answer == TrialScheduler.NOOP) == (trial.status == Trial.PAUSED)
    assert order == [1, 1, 2, 2, 3, 3] * 3
    assert judge.choose_trial_to_run(controller) is None  # the last results paused nobody


def test_without_a_population_the_first_that_waits_is_next(tmp_path: Path) -> None:
    search = SearchConfig.model_validate({"trials": 3, "scheduler": {"name": "none"}})
    play = Play(tmp_path, _SPACE, search, lambda chosen: 0.0)
    controller, judge = Controller(play), judge_of(play)
    assert judge.choose_trial_to_run(controller) is controller.trials[0]
    controller.trials[0].status = Trial.RUNNING
    for epoch in range(1, 4):
        answer = judge.on_trial_result(controller, controller.trials[0], evaluation(epoch, 0.5))
        assert answer == TrialScheduler.CONTINUE
    assert judge.choose_trial_to_run(controller) is controller.trials[1]


def test_a_trial_that_found_the_disk_full_has_not_ended(tmp_path: Path) -> None:
    search = SearchConfig.model_validate({"trials": 2, "scheduler": {"name": "none"}})
    play, told = Play(tmp_path, _SPACE, search, lambda chosen: 0.0), list[str]()
    controller, judge = Controller(play), judge_of(play, lambda name, error: told.append(f"{name} {error}"))
    ends: list[dict[str, Any]] = [{"error": "no space left", "full": True}, {"error": "out of memory", "full": False}]
    for trial, facts in zip(controller.trials, ends, strict=True):
        trial.run_metadata = SimpleNamespace(metric_analysis={}, metric_n_steps={})
        record = {"record": json.dumps({"kind": "end", "state": "failed", **facts})}
        judge.on_trial_complete(controller, trial, record)
    assert told == ["0001 no space left"]
    assert [(trial.state, trial.ended) for trial in play.trials] == [("running", False), ("failed", True)]


@pytest.mark.parametrize("again", [True, False])
def test_a_trial_that_was_lost_before_it_began_is_no_failed_one(tmp_path: Path, again: bool) -> None:
    """Tune gives up a trial whose process is lost while it is handed over, however few losses it has had."""
    search = SearchConfig.model_validate({"trials": 1, "scheduler": {"name": "none"}})
    play = Play(tmp_path, _SPACE, search, lambda chosen: 0.0)
    (trial,) = Controller(play).trials
    trial.should_recover, trial.get_error = lambda: again, lambda: "The actor died"
    lost = Lost(play.board, Groups(), say=lambda text: None, changed=lambda name, move: None)
    lost.on_trial_error(1, [trial], trial)
    task = play.board.next()
    assert (task.trial if task else "") == ("0001" if again else "")
    assert play.trials[0].state == ("running" if again else "failed")


@pytest.mark.parametrize(("most", "pbt"), [(1, True), (2, True), (2, False)])
def test_no_more_trials_at_a_time_than_there_are_places(tmp_path: Path, most: int, pbt: bool) -> None:
    """Supply and Judge as Tune asks them, in a cluster that would have room for all."""
    scheduler = {"name": "pbt", "interval": "2ep"} if pbt else {"name": "none"}
    search = SearchConfig.model_validate({"trials": 4, "scheduler": scheduler})
    play = Play(tmp_path, _SPACE, search, lambda chosen: 0.0, epochs=6)
    judge = judge_of(play, most=most)
    supply = Supply(play.board.next, lambda: most + len(judge.paused), lambda task: "")
    controller = Controller(play, begin=False)
    play.board.start()
    epochs: Counter[str] = Counter()
    for turn in range(100):
        given = supply.suggest(f"t{turn}")
        if isinstance(given, dict):
            controller.add(given, f"t{turn}")
        chosen = judge.choose_trial_to_run(controller)
        for trial in controller.trials:  # Tune starts what is pending without asking
            if trial.status == Trial.PENDING or trial is chosen:
                trial.status = Trial.RUNNING
        running = [trial for trial in controller.trials if trial.status == Trial.RUNNING]
        assert len(running) <= most
        if not running and given == Supply.FINISHED:
            break
        trial = running[turn % len(running)]
        name = json.loads(trial.config["task"])["trial"]
        epochs[name] += 1
        judge.on_trial_result(controller, trial, evaluation(epochs[name], 0.5))
        if epochs[name] == 6:
            trial.status = Trial.TERMINATED
            supply.on_trial_complete(trial.name)
            play.board.end(name, state="finished", epochs=6, seconds=1)
    assert epochs == dict.fromkeys(("0001", "0002", "0003", "0004"), 6)
    assert not judge.paused
