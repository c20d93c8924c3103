"""A board's decisions in the words of Ray Tune: which trials there are, what follows a result, what is given back.

Tune starts the processes, moves results, and starts again what was lost with a node. What it would forget with its
driver (rungs, suggestions, results) is the board's and stands in the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from raycls.search.board import Board, Move, Task

__all__ = ["Groups", "Judge", "Lost", "Supply"]

_GRACE = 20.0
"""Seconds after its end that a trial has to give its workers' reservation back by itself."""


@dataclass
class Groups:
    """The reservations (placement groups) of trials with several workers, and who makes sure they are given back.

    Ray's own cleaner does so only with a dashboard and with no other Ray on the machine.
    """

    _of: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    _due: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, trial: str, group: str) -> None:
        if group:
            self._of.setdefault(trial, set()).add(group)

    def leave(self, trial: str, seconds: float = _GRACE) -> None:
        """The trial has ended: after `seconds` its groups are removed where they are still there."""
        for group in self._of.pop(trial, set()):
            self._due[group] = time.monotonic() + seconds

    def tidy(self) -> None:
        """Remove the groups whose time is over."""
        for group, when in list(self._due.items()):
            if time.monotonic() >= when:
                del self._due[group]
                _remove(group)

    def close(self) -> None:
        """Wait until every group is gone, and remove those that stay."""
        for trial in list(self._of):
            self.leave(trial)
        while any(_is_there(group) for group in self._due):
            self.tidy()
            time.sleep(0.1)
        self._due.clear()


def _is_there(group: str) -> bool:
    state = placement_group_table(_handle(group)).get("state", "REMOVED")
    return state != "REMOVED"


def _remove(group: str) -> None:
    if _is_there(group):
        remove_placement_group(_handle(group))


def _handle(group: str) -> PlacementGroup:
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group)))


class _Unsaved:
    """Tune pickles what it is given, for a resume of its own. Nobody resumes from that: there is nothing to keep."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Supply(_Unsaved, Searcher):
    """Hands Tune one trial after another: as many at a time as there is room for at that moment."""

    def __init__(
        self, take: Callable[[], Task | None], room: Callable[[], int], started: Callable[[Task], Any]
    ) -> None:
        super().__init__()
        self._take, self._room, self._started = take, room, started
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """What Tune gives the trial; None: not now; `FINISHED`: no more."""
        if len(self._running) >= self._room():
            return None
        task = self._take()
        if task is None:
            return Searcher.FINISHED
        self._running.add(trial_id)
        return {"task": json.dumps(asdict(task)), "donor": self._started(task)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""


class Judge(_Unsaved, FIFOScheduler):
    """Gives every result to the board and does what it says."""

    def __init__(
        self,
        board: Board,
        groups: Groups,
        *,
        tick: Callable[[], None],
        changed: Callable[[str, Move | None], None],
        interrupted: Callable[[], bool],
        donated: Callable[[Task], str],
        full: Callable[[str, str], None],
        most: Callable[[], int],
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__()
        self.paused: set[str] = set()
        """Members of a population that wait for their next turn."""
        self._board, self._groups = board, groups
        self._tick, self._changed, self._interrupted = tick, changed, interrupted
        self._donated, self._full, self._most = donated, full, most
        self._note, self._noted = note, set[str]()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Tune asks this several times a second, so it is also where time passes."""
        self._tick()
        self._groups.tidy()
        if self._board.population is None:
            return super().choose_trial_to_run(tune_controller)
        trials = tune_controller.get_trials()
        waiting = [trial for trial in trials if trial.status == Trial.PENDING]  # Tune starts these in any case
        if len(waiting) + sum(trial.status == Trial.RUNNING for trial in trials) < self._most():
            waiting += [trial for trial in trials if trial.status == Trial.PAUSED]
        chosen = min(waiting, key=lambda trial: self._board.turn(_task(trial)["trial"]), default=None)
        if chosen is not None:
            self.paused.discard(_task(chosen)["trial"])
        return chosen

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        record = _record(result)
        name = _task(trial)["trial"]
        if record.get("kind") == "group":
            self._groups.add(name, record["placement_group"])
        elif record.get("kind") == "test":
            self._board.ledger.test(name, values=record["values"])
        elif record.get("kind") == "note":
            if record["text"] not in self._noted:  # what holds for all trials is told once
                self._noted.add(record["text"])
                self._note(record["text"])
        elif record.get("kind") == "leaving":
            trial.max_failures += 1  # Tune counts the end of its process, and this is none
        elif record.get("kind") == "evaluation":
            return self._judged(tune_controller, trial, name, record)
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        name, record = _task(trial)["trial"], _record(result)
        for kept in (trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps):
            kept.clear()  # statistics that nobody reads, of every trial until the end of the search
        self._groups.leave(name)
        known = self._board.ledger.trials[name]
        state = str(record.get("state", "stopped"))
        if self._interrupted() and state == "stopped" and known.state == "running":
            return  # it goes on when the search does
        error = record.get("error")
        if record.get("full"):
            self._full(name, str(error))  # so does this one, when there is room again
            return
        self._board.end(name, state=state, epochs=known.epochs, seconds=known.seconds, error=error)
        self._changed(name, None)

    def _judged(self, controller: Any, trial: Trial, name: str, record: dict[str, Any]) -> str:
        facts = {key: record[key] for key in ("step", "epoch", "seconds", "values")}
        move = self._board.judge(name, **facts)
        self._changed(name, move)
        if move.stop:
            return TrialScheduler.STOP
        if move.task is not None:
            self._pause(controller, trial)
            trial.set_config({"task": json.dumps(asdict(move.task)), "donor": self._donated(move.task)})
            return TrialScheduler.NOOP
        others = any(other.status in (Trial.PENDING, Trial.PAUSED) for other in controller.get_trials())
        if move.turn and (others or self._board.has_more):
            self._pause(controller, trial)  # more trials than places: each has its turn
            return TrialScheduler.NOOP
        return TrialScheduler.CONTINUE

    def _pause(self, controller: Any, trial: Trial) -> None:
        controller.pause_trial(trial, should_checkpoint=False)
        self.paused.add(_task(trial)["trial"])


class Lost(_Unsaved, Callback):
    """Trials whose process or node was lost. Tune tells a scheduler of those that it starts again and of those that it
    gives up in the same words; here it tells them apart.
    """

    def __init__(
        self, board: Board, groups: Groups, *, say: Callable[[str], None], changed: Callable[[str, Move | None], None]
    ) -> None:
        self._board, self._groups, self._say, self._changed = board, groups, say, changed

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """What its workers had reserved is given back before it starts again."""
        name = self._left(trial)
        self._say(f"trial {name} was lost with its process or node; it resumes from its latest checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """It was lost once too often: a failed trial. Or its process was lost before it began, which Tune does not try
        again.
        """
        name = self._left(trial)
        if trial.should_recover():
            self._board.again(name)
            return
        known = self._board.ledger.trials[name]
        lost = "its process or node was lost, more often than search.max_failures allows"
        reason = str(trial.get_error() or "").strip().splitlines()
        error = f"{lost}: {reason[-1]}" if reason else lost
        self._board.end(name, state="failed", epochs=known.epochs, seconds=known.seconds, error=error)
        self._changed(name, None)

    def _left(self, trial: Trial) -> str:
        name = _task(trial)["trial"]
        self._groups.leave(name, 0.0)
        self._groups.tidy()
        return name


def _task(trial: Trial) -> dict[str, Any]:
    return json.loads(trial.config["task"])


def _record(result: dict[str, Any]) -> dict[str, Any]:
    text = result.get("record")
    return json.loads(text) if text else {}
