"""`trials.jsonl`: what happened in a search, one JSON object per line, written when it happens.

What is read back is what the process that wrote it knew: both go through the same function. A line that a
crash tore is left out, a line that says again what is known changes nothing, and a kind of line that a later
version writes is kept in the file and ignored here.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raycls.config.sections.search import decisive
from raycls.run import strict_json
from raycls.run.folder import RunFolder, read_json_lines
from raycls.run.storage.store import Store

__all__ = ["Exploit", "Result", "Trial", "TrialLog", "trial_id"]


@dataclass(frozen=True, slots=True)
class Result:
    """One evaluation of a trial."""

    step: int
    epoch: float
    seconds: float
    """What the trial had taken by then."""
    values: Mapping[str, float]
    rung: float | None = None
    """The rung of the scheduler at which it was recorded, None between rungs."""
    cutoff: float | None = None
    """What it had to reach there."""


@dataclass(frozen=True, slots=True)
class Exploit:
    """A trial continued from the weights of another one, with other values."""

    donor: str
    step: int
    """It continued from here: what it had measured after this step is measured again."""
    chosen: Mapping[str, Any]


@dataclass(slots=True)
class Trial:
    """One trial, as far as its lines tell."""

    id: str
    number: int
    phase: str
    """`search`, or `confirm` for a model that is trained again on another seed."""
    chosen: Mapping[str, Any]
    """{path: value}; after an exploit the new ones."""
    first_chosen: Mapping[str, Any]
    seed: int | None
    of: str | None
    """The trial that this one repeats."""
    asked: float
    """Epochs it was to run."""
    steps_per_epoch: int
    results: list[Result] = field(default_factory=list[Result])
    state: str = "running"
    """`running`, `finished`, `stopped` or `failed`."""
    ended: bool = False
    """Whether its end was written; a stopped trial without one was not waited for."""
    why: str = ""
    """Why it was stopped."""
    epochs: float = 0.0
    """Epochs run, as far as is known."""
    seconds: float = 0.0
    error: str | None = None
    exploits: list[Exploit] = field(default_factory=list[Exploit])
    test: Mapping[str, float] | None = None
    """What the test split gave, once."""
    _steps: set[int] = field(default_factory=set[int])
    _own_from: int = 0

    def value(self, metric: str, mode: str) -> float | None:
        """The best `metric` (`mode` max or min) over the results of the present weights, None where none is finite.

        After an exploit the weights are another trial's: what was measured before it is not theirs.
        """
        found = [
            value for item in self.results[self._own_from :] if math.isfinite(value := decisive(item.values, metric))
        ]
        return (max(found) if mode == "max" else min(found)) if found else None

    def knows(self, step: int) -> bool:
        """Whether the result of `step` was recorded."""
        return step in self._steps


def trial_id(number: int, seed: int | None = None) -> str:
    """`0003`, or `0003-s1` for the same values trained again with the seed 1."""
    return f"{number:04d}" if seed is None else f"{number:04d}-s{seed}"


class _Known:
    """What the lines so far tell."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self.trials: dict[str, Trial] = {}
        self.attempt = 0
        """The number of the newest start, 0 before the first."""
        self.end_reason: str | None = None
        """Why the search ended, None while it runs or where it was cut off."""

    def _take(self, line: Mapping[str, Any]) -> bool:
        """Learn what a line says; whether it said anything new."""
        take = _TAKE.get(str(line.get("kind")))
        try:
            now = float(line.get("time", 0.0))
            new = take is None or take(self, line)
        except (KeyError, TypeError, ValueError, AttributeError):
            return False  # not as this version writes it
        if self._spans and now > self._spans[-1][1]:
            self._spans[-1] = (self._spans[-1][0], now)
        return new

    def _take_start(self, line: Mapping[str, Any]) -> bool:
        number, now = int(line["attempt"]), float(line["time"])
        if number <= self.attempt:
            return False
        self.attempt, self.end_reason = number, None
        self._spans.append((now, now))
        return True

    def _take_trial(self, line: Mapping[str, Any]) -> bool:
        name, chosen = str(line["trial"]), dict(line["chosen"])
        if name in self.trials:
            return False
        self.trials[name] = Trial(
            id=name,
            number=int(line["number"]),
            phase=str(line["phase"]),
            chosen=chosen,
            first_chosen=chosen,
            seed=line["seed"],
            of=line["of"],
            asked=float(line["asked"]),
            steps_per_epoch=int(line["steps_per_epoch"]),
        )
        return True

    def _take_result(self, line: Mapping[str, Any]) -> bool:
        trial, step = self.trials[line["trial"]], int(line["step"])
        if trial.knows(step):
            return False
        epoch, seconds = float(line["epoch"]), float(line["seconds"])
        rung, cutoff = _number(line.get("rung")), _number(line.get("cutoff"))
        trial.results.append(Result(step, epoch, seconds, _numbers(line["values"]), rung, cutoff))
        trial._steps.add(step)
        if not trial.ended:
            trial.epochs, trial.seconds = max(trial.epochs, epoch), max(trial.seconds, seconds)
        return True

    def _take_stop(self, line: Mapping[str, Any]) -> bool:
        trial = self.trials[line["trial"]]
        if trial.state != "running":
            return False
        trial.state, trial.why = "stopped", str(line["why"])
        return True

    def _take_exploit(self, line: Mapping[str, Any]) -> bool:
        trial, item = self.trials[line["trial"]], Exploit(line["donor"], int(line["step"]), dict(line["chosen"]))
        if item in trial.exploits:
            return False
        trial.exploits.append(item)
        trial.chosen = item.chosen
        trial._own_from = len(trial.results)
        trial._steps = {step for step in trial._steps if step <= item.step}
        return True

    def _take_end(self, line: Mapping[str, Any]) -> bool:
        trial = self.trials[line["trial"]]
        if trial.ended:
            return False
        epochs, seconds, state = float(line["epochs"]), float(line["seconds"]), str(line["state"])
        trial.ended, trial.epochs, trial.seconds, trial.error = True, epochs, seconds, line["error"]
        trial.state = trial.state if trial.state == "stopped" else state
        return True

    def _take_test(self, line: Mapping[str, Any]) -> bool:
        trial = self.trials[line["trial"]]
        if trial.test is not None:
            return False
        trial.test = _numbers(line["values"])
        return True

    def _take_end_of_search(self, line: Mapping[str, Any]) -> bool:
        if self.end_reason is not None:
            return False
        self.end_reason = str(line["reason"])
        return True


_TAKE: dict[str, Callable[[_Known, Mapping[str, Any]], bool]] = {
    "start": _Known._take_start,
    "trial": _Known._take_trial,
    "result": _Known._take_result,
    "stop": _Known._take_stop,
    "exploit": _Known._take_exploit,
    "end": _Known._take_end,
    "test": _Known._take_test,
    "end_of_search": _Known._take_end_of_search,
}


class TrialLog(_Known):
    """The trials of one search, in the order they were started.

    Each method writes one line, which is on the disk when it returns; of what was written before, it returns
    False and writes nothing. One process at a time may write. Raises CheckpointError when a line cannot be
    written (nothing has changed then), and KeyError for a trial that was never added.
    """

    FILE = RunFolder.TRIALS

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        for line in read_json_lines(store, self.FILE):
            self._take(line)
        self.seconds = sum(end - begin for begin, end in self._spans)
        """Wall clock of the starts before this object was made: from the start to the last line of each."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What is in the file, in order, each fact once. Read anew each time: nothing keeps it in memory."""
        known = _Known()
        return [line for line in read_json_lines(self._store, self.FILE) if known._take(line)]

    def start(self) -> int:
        """Note that the search is started, or gone on with; returns the number of the attempt, 1 for the first."""
        self._write({"kind": "start", "attempt": self.attempt + 1})
        return self.attempt

    def add_trial(
        self,
        name: str,
        *,
        number: int,
        chosen: Mapping[str, Any],
        asked: float,
        steps_per_epoch: int,
        phase: str = "search",
        seed: int | None = None,
        of: str | None = None,
    ) -> Trial:
        """Note that the trial with the id `name` begins. ValueError if there is one already."""
        if name in self.trials:
            raise ValueError(f"there is a trial {name} already")
        facts = {"number": number, "phase": phase, "chosen": chosen, "seed": seed, "of": of}
        self._write({"kind": "trial", "trial": name, **facts, "asked": asked, "steps_per_epoch": steps_per_epoch})
        return self.trials[name]

    def result(
        self,
        name: str,
        *,
        step: int,
        epoch: float,
        seconds: float,
        values: Mapping[str, float],
        rung: float | None = None,
        cutoff: float | None = None,
    ) -> bool:
        """Note an evaluation after `step` steps. Values that are not finite are kept as they are."""
        if self.trials[name].knows(step):
            return False
        facts = {"step": step, "epoch": epoch, "seconds": seconds, "values": values, "rung": rung, "cutoff": cutoff}
        return self._write({"kind": "result", "trial": name, **facts})

    def stop(self, name: str, *, step: int, why: str) -> bool:
        """Note the decision to stop a trial: it is stopped from here on, whatever its end says."""
        if self.trials[name].state != "running":
            return False
        return self._write({"kind": "stop", "trial": name, "step": step, "why": why})

    def exploit(self, name: str, *, donor: str, step: int, chosen: Mapping[str, Any], weights: str = "") -> bool:
        """Note that a trial continues from the weights that `donor` had after `step` steps, with the values `chosen`.

        `weights` is their sha256.
        """
        if Exploit(donor, step, strict_json.plain(chosen)) in self.trials[name].exploits:
            return False
        facts = {"donor": donor, "step": step, "weights": weights, "chosen": chosen}
        return self._write({"kind": "exploit", "trial": name, **facts})

    def end(self, name: str, *, state: str, epochs: float, seconds: float, error: str | None = None) -> bool:
        """Note how a trial ended: `finished`, `stopped` or `failed`, the last with its `error`."""
        if self.trials[name].ended:
            return False
        facts = {"state": state, "epochs": epochs, "seconds": seconds, "error": error}
        return self._write({"kind": "end", "trial": name, **facts})

    def test(self, name: str, *, values: Mapping[str, float], split: str = "test") -> bool:
        """Note what the test split gave for a trial of the confirmation."""
        if self.trials[name].test is not None:
            return False
        return self._write({"kind": "test", "trial": name, "split": split, "values": values})

    def end_search(self, reason: str) -> bool:
        """Note why no further trial is started: `trials`, `exhausted`, `target` or `budget`."""
        if self.end_reason is not None:
            return False
        return self._write({"kind": "end_of_search", "reason": reason})

    def pause(self, reason: str) -> None:
        """Note that this start is left for `reason`: its time since the line before counts too."""
        self._write({"kind": "pause", "reason": reason})

    def _write(self, line: Mapping[str, Any]) -> bool:
        # Made plain first: memory then holds what another process will read.
        plain = strict_json.plain({**line, "time": time.time()})
        self._store.append_line(self.FILE, strict_json.dumps(plain), sync=True)
        return self._take(plain)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    # Interned: a name that thousands of results have is kept once.
    return {sys.intern(str(name)): _finite_or_not(value) for name, value in values.items()}


def _number(value: Any) -> float | None:
    return None if value is None else _finite_or_not(value)


def _finite_or_not(value: Any) -> float:
    return strict_json.NOT_FINITE[value] if isinstance(value, str) else float(value)
