"""A search over a board without any training: a function says what a trial measures, and a seed who is next."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Space
from raycls.run.storage.store import Store
from raycls.search.board import Board, Length, Task
from raycls.search.results import best, write_csv
from raycls.search.samplers import make_sampler
from raycls.search.trials import Trial, TrialLog

STEPS = 5
"""Of an epoch."""


class Play:
    """One start of a search in `folder`, whose trials run `epochs` epochs.

    A trial that goes on does so from what the ledger says of it: from its own last result, or from the one that it
    took over. `grows(chosen)` is added to its value in each epoch; an error that it raises is the trial's.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        search: SearchConfig,
        grows: Callable[[Mapping[str, Any]], float],
        *,
        epochs: int = 9,
        concurrency: int = 1,
        seed: int = 0,
        mode: Literal["max", "min"] = "max",
        keep: Callable[[str, int, str, int], str] = lambda *what: "sha",
    ) -> None:
        self.store = Store(folder)
        self.space, self.search, self.mode, self.grows = space, search, mode, grows
        self.ledger = TrialLog(self.store)
        sampler = make_sampler(space, search, mode=mode)
        length = Length(epochs, STEPS)
        self.board = Board(self.ledger, space, search, sampler, "top1", mode, lambda chosen: length, keep)
        self.concurrency = search.trials if search.scheduler.name == "pbt" else concurrency  # they take turns
        self.handed: list[str] = []
        """Every trial that the board handed out, in that order."""
        self._draw = random.Random(seed)
        self._running: dict[str, Task] = {}
        self._now: dict[str, tuple[int, float]] = {}
        self._measured: dict[tuple[str, int], float] = {}

    def run(self) -> Play:
        """To the end of the search, with its table."""
        self.board.start()
        self._read()
        while self._fill() or self._running:
            self._turn(self._chosen())
        self.ledger.end_search(self.board.over)
        write_csv(self.store, self.ledger, self.space.paths, "top1", self.mode)
        return self

    @property
    def winner(self) -> str | None:
        found = best(self.ledger, "top1", self.mode)
        return None if found is None else found.id

    @property
    def trials(self) -> list[Trial]:
        return list(self.ledger.trials.values())

    @property
    def decided(self) -> list[Any]:
        """All that was decided, without clocks."""
        return [(self.board.over, self.winner, self.store.read_bytes("trials.csv")), *map(_facts, self.trials)]

    def _fill(self) -> bool:
        """Take trials from the board until there is no place or no trial."""
        while len(self._running) < self.concurrency and (task := self.board.next()) is not None:
            assert task.trial not in self._running, "a trial runs twice"
            self.handed.append(task.trial)
            self._running[task.trial] = task
        return bool(self._running)

    def _chosen(self) -> str:
        if self.board.population is not None:  # they take turns
            return min(self._running, key=self.board.turn)
        return self._draw.choice(list(self._running)) if self.concurrency > 1 else next(iter(self._running))

    def _turn(self, name: str) -> None:
        """The trial trains one epoch and is judged."""
        trial, task = self.ledger.trials[name], self._running[name]
        step, value = self._now.get(name, (0, 0.0))
        if step < trial.asked * STEPS:
            try:
                step, value = step + STEPS, value + self.grows(task.chosen)
            except ArithmeticError as error:
                self._end(name, "failed", str(error))
                return
            facts = {"step": step, "epoch": step / STEPS, "seconds": 2.0 * step, "values": {"top1": value}}
            self._measure(name, step, value)
            move = self.board.judge(name, **facts)
            if move.task is not None:
                self._running[name] = move.task
                self._take_over(name, move.donor, move.step)
            if move.stop:
                self._end(name, "stopped")
                return
        if step == trial.asked * STEPS:
            self._end(name, "finished")
        if self.board.over in ("target", "failed"):
            for other in list(self._running):
                self._end(other, "stopped")

    def _end(self, name: str, state: str, error: str | None = None) -> None:
        trial = self.ledger.trials[name]
        del self._running[name]
        self.board.end(name, state=state, epochs=trial.epochs, seconds=trial.seconds, error=error)

    def _read(self) -> None:
        """Where the weights of every trial are, by the ledger of the starts before."""
        for line in self.ledger.lines:
            if line["kind"] == "result":
                self._measure(line["trial"], line["step"], float(line["values"]["top1"]))
            elif line["kind"] == "exploit":
                self._take_over(line["trial"], line["donor"], line["step"])

    def _measure(self, name: str, step: int, value: float) -> None:
        self._now[name] = step, value
        self._measured[name, step] = value

    def _take_over(self, name: str, donor: str, step: int) -> None:
        self._now[name] = step, self._measured.get((donor, step), 0.0)  # none where the donor's line was damaged


def _facts(trial: Trial) -> tuple[Any, ...]:
    return (trial.id, trial.first_chosen, trial.chosen, trial.results, trial.exploits, trial.state, trial.why,
            trial.epochs, trial.seconds, trial.error)  # fmt: skip
