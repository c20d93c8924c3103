"""What a search knows and decides: which trial comes next, which continues, which exploits which. No Ray, no clock.

Everything is written to the ledger when it happens, and everything that is known is what the ledger says: a board
over the ledger of a search that was killed decides as the one that was killed would have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from raycls.config.sections.duration import Duration
from raycls.config.sections.search import SearchConfig, decisive
from raycls.config.space.space import Space
from raycls.search.asha import Asha
from raycls.search.median import Median
from raycls.search.pbt import Population
from raycls.search.samplers import Sampler
from raycls.search.scheduler import Never, Scheduler, goodness
from raycls.search.trials import Trial, TrialLog, trial_id

__all__ = ["Board", "Length", "Move", "Task"]

_FAILED_FIRST = 3
"""When that many trials failed, and all that were started by then do so too, the search ends: something is wrong with
every one of them."""
_LEAVING = ("target", "failed")
"""Ends of a search that are also the end of the trials that run."""
_CORNERS = 64
"""Combinations that are looked at for the longest trial, where lengths are searched."""
_TIMED_RUNGS = 10
"""Rungs of a grace that is a time, where the length of a run is not known."""


@dataclass(frozen=True)
class Length:
    """How long a trial is asked to run."""

    epochs: float
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return round(self.epochs * self.steps_per_epoch)


@dataclass(frozen=True)
class Task:
    """A trial that is to be started, or gone on with."""

    trial: str
    number: int
    chosen: Mapping[str, Any]
    seed: int | None = None
    phase: str = "search"
    exploits: int = 0
    """How many exploits it made so far; the latest is in the log."""
    tested: bool = False
    """Whether the test split was scored already."""


@dataclass(frozen=True)
class Move:
    """What happens to a trial after a result."""

    stop: bool = False
    why: str = ""
    task: Task | None = None
    """Set where the trial continues from the weights of `donor` after `step` steps, with other values."""
    donor: str = ""
    step: int = 0
    turn: bool = False
    """Whether the trial has come past an interval: where there are more trials than places, another one's turn."""


@dataclass
class Board:
    """The decisions of one search, over its ledger."""

    ledger: TrialLog
    space: Space
    search: SearchConfig
    sampler: Sampler
    metric: str
    mode: Literal["max", "min"]
    length: Callable[[Mapping[str, Any]], Length]
    """Of a trial with these values."""
    keep: Callable[[str, int, str, int], str] = lambda donor, step, trial, count: "-"
    """Puts the checkpoint of `donor` after `step` steps where exploit number `count` of `trial` finds it, whatever the
    donor does meanwhile. Returns the sha256 of its weights, empty where it cannot be had."""
    over: str = ""
    """Why no further trial is started: `trials`, `exhausted`, `target`, `failed`; empty while there are more."""
    _waiting: deque[Task] = field(default_factory=deque[Task])

    def __post_init__(self) -> None:
        self.scheduler = self._scheduler()
        self.population = self._population()
        self._next = 1
        self._lost: deque[int] = deque()
        """Numbers below it whose line in the ledger was damaged: these trials are started again."""
        self._failed = 0
        self._doubtful = 0
        """The newest trial when so many had failed that the rest is waited for."""
        self._verdicts: dict[str, tuple[int, str]] = {}
        """Trials that are to be stopped after a step, and why: killed between a result and what follows from it."""
        self._learner: tuple[Trial, int] | None = None
        """A trial that is to continue from that of the number: killed at the same moment."""
        self._replay()

    def start(self) -> None:
        """Note a start of the search. Once, before the first `next`: what an earlier start was about to write when it
        was killed is written now, and what was under way stands at the head of the queue.
        """
        self.ledger.start()
        for name, (step, why) in self._verdicts.items():
            self.ledger.stop(name, step=step, why=why)
        if self._learner is not None:
            self._exploit(*self._learner)
        for trial in self.searched:
            left = trial.state == "stopped" or (trial.state == "running" and self.leaving)
            if left and not trial.ended:  # decided, but nobody was left to see it end
                state = "finished" if trial.epochs >= trial.asked else "stopped"
                self.end(trial.id, state=state, epochs=trial.epochs, seconds=trial.seconds)
            elif trial.state == "running":
                self._waiting.append(self._task(trial))

    def next(self) -> Task | None:
        """The trial to start now; None where there is none any more, and `over` says why."""
        if self._waiting and not self.leaving:
            return self._waiting.popleft()
        if self.over:
            return None
        number = self._lost[0] if self._lost else self._next
        chosen = self.sampler.suggest(number) if number <= self.search.trials else None
        if chosen is None:
            self.over = "trials" if number > self.search.trials else "exhausted"
            self._give_up()
            return None
        if self._lost:
            self._lost.popleft()
        else:
            self._next += 1
        length, name = self.length(chosen), trial_id(number)
        self.ledger.add_trial(
            name, number=number, chosen=chosen, asked=length.epochs, steps_per_epoch=length.steps_per_epoch
        )
        return Task(name, number, chosen)

    def again(self, name: str) -> None:
        """Put a trial at the end of the queue whose process was lost before it began."""
        trial = self.ledger.trials[name]
        if trial.phase == "search":
            self._waiting.append(self._task(trial))

    def judge(self, name: str, *, step: int, epoch: float, seconds: float, values: Mapping[str, float]) -> Move:
        """Take an evaluation of a trial into the ledger and decide about it. One that is known gets its old answer, and
        one of a trial that was stopped, or has ended, is too late: it is told to stop, and the others never hear of it.
        """
        trial = self.ledger.trials[name]
        if trial.knows(step) or trial.state != "running":
            return Move(trial.state != "running", trial.why)
        if trial.phase != "search":
            self.ledger.result(name, step=step, epoch=epoch, seconds=seconds, values=values)
            return Move()
        value = decisive(values, self.metric)
        if self.population is not None:
            return self._evolve(self.population, trial, step, epoch, seconds, values)
        time = self._time(trial, self.search.scheduler.grace, step, epoch, seconds)
        verdict = self.scheduler.judge(trial.number, time, value)
        self.ledger.result(
            name, step=step, epoch=epoch, seconds=seconds, values=values, rung=verdict.rung, cutoff=verdict.cutoff
        )
        self._aim(value)
        if verdict.stop and epoch < trial.asked:  # one that is at its end has nothing left to be stopped from
            self.ledger.stop(name, step=step, why=verdict.why)
            return Move(True, verdict.why)
        return Move()

    def end(self, name: str, *, state: str, epochs: float, seconds: float, error: str | None = None) -> None:
        """A trial ended: `finished`, `stopped` or `failed`."""
        trial = self.ledger.trials[name]
        if self.ledger.end(name, state=state, epochs=epochs, seconds=seconds, error=error) and trial.phase == "search":
            self._learn(trial)
            self._give_up()

    def confirm(self, name: str, seed: int) -> Task | None:
        """The task to train the values of trial `name` with another seed; None if that was done and scored."""
        source = self.ledger.trials[name]
        repeated = trial_id(source.number, seed)
        known = self.ledger.trials.get(repeated)
        if known is None:
            facts = {"number": source.number, "chosen": source.chosen, "seed": seed, "of": name}
            self.ledger.add_trial(
                repeated, **facts, phase="confirm", asked=source.asked, steps_per_epoch=source.steps_per_epoch
            )
        elif known.ended:
            return None
        tested = known is not None and known.test is not None
        return Task(repeated, source.number, source.chosen, seed, "confirm", tested=tested)

    @property
    def has_more(self) -> bool:
        """Whether trials are left that were not handed out, as far as `search.trials` tells."""
        return bool(self._waiting or self._lost) or (not self.over and self._next <= self.search.trials)

    @property
    def is_played(self) -> bool:
        """Whether every trial of the search has ended and none is to come. Sets `over` where that was not known yet."""
        if self._waiting or any(trial.phase == "search" for trial in self.running):
            return False
        number = self._lost[0] if self._lost else self._next
        if not self.over and number > self.search.trials:
            self.over = "trials"
        elif not self.over and self.sampler.suggest(number) is None:
            self.over = "exhausted"
        return bool(self.over)

    @property
    def leaving(self) -> bool:
        """Whether the trials that run are to end, too."""
        return self.over in _LEAVING

    @property
    def searched(self) -> list[Trial]:
        """The trials of the search itself, without those that confirm its result."""
        return [trial for trial in self.ledger.trials.values() if trial.phase == "search"]

    @property
    def running(self) -> list[Trial]:
        """The trials that were started and neither ended nor were stopped."""
        return [trial for trial in self.ledger.trials.values() if trial.state == "running"]

    def turn(self, name: str) -> tuple[float, int]:
        """Whose turn it is where there are more trials than places: the trial's for which this is smallest."""
        trial = self.ledger.trials[name]
        return trial.epochs, trial.number

    def _replay(self) -> None:
        """Bring sampler and scheduler to where the ledger is, and find what should have followed. Writes nothing."""
        for line in self.ledger.lines:
            kind, trial = line.get("kind"), self.ledger.trials.get(str(line.get("trial")))
            if trial is None or trial.phase != "search":
                continue
            self._learner = None
            if kind == "trial":
                self.sampler.adopt(trial.number, line["chosen"])
                self._next = max(self._next, trial.number + 1)
            elif kind == "result":
                self._replay_result(trial, line)
            elif kind == "end":
                self._learn(trial)
        known = {trial.number for trial in self.searched}
        self._lost.extend(number for number in range(1, self._next) if number not in known)
        self._give_up()

    def _replay_result(self, trial: Trial, line: Mapping[str, Any]) -> None:
        # From the line and not from the trial: after an exploit a step may have been measured twice.
        value = decisive(line["values"], self.metric)
        goes_on = trial.state == "running" and line["epoch"] < trial.asked
        where = int(line["step"]), float(line["epoch"]), float(line["seconds"])
        self._aim(value)
        if self.population is not None:
            time = self._time(trial, self.search.scheduler.interval, *where)
            number = self.population.report(trial.number, time, value)
            self._learner = (trial, number) if number is not None and goes_on else None
            return
        verdict = self.scheduler.judge(trial.number, self._time(trial, self.search.scheduler.grace, *where), value)
        if verdict.stop and goes_on:
            self._verdicts[trial.id] = where[0], verdict.why

    def _task(self, trial: Trial) -> Task:
        return Task(trial.id, trial.number, trial.chosen, trial.seed, trial.phase, len(trial.exploits))

    def _evolve(
        self,
        population: Population,
        trial: Trial,
        step: int,
        epoch: float,
        seconds: float,
        values: Mapping[str, float],
    ) -> Move:
        value = decisive(values, self.metric)
        time = self._time(trial, self.search.scheduler.interval, step, epoch, seconds)
        before = trial.results[-1].epoch if trial.results else 0.0
        number = population.report(trial.number, time, value)
        self.ledger.result(trial.id, step=step, epoch=epoch, seconds=seconds, values=values)
        self._aim(value)
        if epoch >= trial.asked:  # it has nothing left to wait for
            return Move()
        if number is not None:
            return self._exploit(trial, number)
        return Move(turn=population.passed(time * before / epoch, time))

    def _exploit(self, trial: Trial, number: int) -> Move:
        """Let `trial` continue from trial `number`, where its checkpoint can still be had."""
        donor, count = self.ledger.trials[trial_id(number)], len(trial.exploits) + 1
        step = donor.results[-1].step
        weights = self.keep(donor.id, step, trial.id, count)
        if self.population is None or not weights:
            return Move(turn=True)
        chosen = self.population.explore(donor.chosen, trial.number, count)
        if not self.ledger.exploit(trial.id, donor=donor.id, step=step, chosen=chosen, weights=weights):
            return Move(turn=True)  # the very same as one before: nothing would be new
        return Move(task=self._task(trial), donor=donor.id, step=step)

    def _learn(self, trial: Trial) -> None:
        """From the end of a trial."""
        failed = trial.state == "failed"
        self.sampler.tell(trial.number, trial.chosen, None if failed else trial.value(self.metric, self.mode))
        self._failed += failed
        if self._failed == _FAILED_FIRST and not self._doubtful:
            self._doubtful = self._next - 1

    def _aim(self, value: float) -> None:
        target = self.search.target
        if not isinstance(target, str) and goodness(value, self.mode) >= goodness(target, self.mode):
            self.over = "target"

    def _give_up(self) -> None:
        """End a search that has nothing but failures, once there are enough of them or no more trials to come."""
        trials = self.searched
        failed = {trial.number for trial in trials if trial.ended and trial.state == "failed"}
        if self.over == "target" or any(trial.results for trial in trials if trial.number not in failed):
            return
        enough = self._doubtful and failed.issuperset(range(1, self._doubtful + 1))
        no_more = self.over in ("trials", "exhausted") and 0 < len(trials) == len(failed)
        if enough or no_more:
            self.over = "failed"

    def _time(self, trial: Trial, unit: Duration, step: int, epoch: float, seconds: float) -> float:
        """Where a result is, in the unit of the scheduler."""
        if unit.seconds is not None:
            return seconds
        return {"ep": epoch, "st": float(step), "%": 100 * epoch / trial.asked}[unit.unit]

    def _scheduler(self) -> Scheduler:
        chosen = self.search.scheduler
        grace = chosen.grace.seconds or chosen.grace.value
        if chosen.name == "asha":
            return Asha(
                grace=grace,
                reduction=chosen.reduction,
                brackets=chosen.brackets,
                longest=self._longest(chosen.grace, grace, chosen.reduction),
                mode=self.mode,
                seed=self.search.seed,
            )
        return Median(grace=grace, mode=self.mode) if chosen.name == "median" else Never()

    def _population(self) -> Population | None:
        chosen = self.search.scheduler
        if chosen.name != "pbt":
            return None
        return Population(self.space, chosen, mode=self.mode, seed=self.search.seed)

    def _longest(self, unit: Duration, grace: float, reduction: int) -> float:
        if unit.seconds is not None:
            return grace * reduction**_TIMED_RUNGS
        varied = {"train.duration", "data.batch_size"} & set(self.space.paths)
        lengths = [self.length({}), *(self.length(chosen) for chosen in self.space.corners(_CORNERS if varied else 0))]
        most_epochs = max(length.epochs for length in lengths)
        most_steps = max(length.steps for length in lengths)
        return {"ep": most_epochs, "st": float(most_steps), "%": 100.0}[unit.unit]
