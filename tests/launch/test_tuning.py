"""The board's decisions in Tune's words, with a controller that only keeps lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.play import STEPS, Play
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raycls.config.search import SearchConfig
from raycls.config.space import Parameter, Space
from raycls.launch.tuning import Groups, Judge

_SPACE = Space((Parameter("optim.lr", "uniform", low=0.0, high=1.0),))


class Controller:
    """Tune's, with one place for all trials."""

    def __init__(self, play: Play) -> None:
        self.trials: list[Any] = []
        play.board.start()
        while task := play.board.next():
            trial = SimpleNamespace(status=Trial.PENDING, config={"task": json.dumps(asdict(task))})
            trial.set_config = lambda new, trial=trial: setattr(trial, "config", new)
            self.trials.append(trial)

    def get_trials(self) -> list[Any]:
        return self.trials

    def pause_trial(self, trial: Any, should_checkpoint: bool) -> None:
        trial.status = Trial.PAUSED


def judge_of(play: Play, full: Callable[[str, str], None] = lambda name, error: None) -> Judge:
    return Judge(
        play.board,
        Groups(),
        tick=lambda: None,
        changed=lambda name, move: None,
        interrupted=lambda: False,
        donated=lambda task: "donor",
        full=full,
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
