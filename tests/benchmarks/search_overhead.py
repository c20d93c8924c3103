"""`search.py overhead`: what a trial costs beside its training, next to plain `ray.tune` with an empty function.

Both have their processes already: what is measured begins with the end of the first few trials, so that starting Ray,
a process for each slot and its imports are not in it. A trial of ours trains four steps and evaluates once; the time
of that is read from its history and taken off. The yardstick keeps its processes from trial to trial, as our
trials do (`reuse_actors=True`); what Tune does by default, a new process for each, is measured beside it.
"""

from __future__ import annotations

import cProfile
import gc
import json
import os
import pstats
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from searching import Searched, finished, numbers, plain_clock, slots, start_plain, write_tiny

from raycls.config.load import load, to_dict
from raycls.data.source import open_dataset
from raycls.search.board import Task
from raycls.train.reasons import Reason
from raycls.tune import trial

__all__ = ["TARGET", "overhead", "profile"]

TARGET = 0.2
"""Slot-seconds over plain Tune."""
_LISTED = 30
_SYSTEM = (
    "<built-in method gc.collect>",
    "<built-in method posix.fsync>",
    "<built-in method posix.rename>",
    "<built-in method posix.replace>",
)
_LEAST = 0.02
"""Functions with less of a trial's time than this are not listed."""


def overhead(folder: Path, *, trials: int, rounds: int, fresh: int) -> dict[str, Any]:
    """Slot-seconds per trial, in turns; `fresh` trials of Tune's default, once per round, none where it is 0."""
    config = write_tiny(folder)
    variants: dict[str, Callable[[str], dict[str, float]]] = {
        "plain": lambda name: _plain(folder, name, trials, keep=True),
        "raycls": lambda name: _ours(folder, config, name, trials),
    }
    if fresh:
        variants["plain, a process for each"] = lambda name: _plain(folder, name, fresh, keep=False)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            run = variants[name](f"overhead-{name.replace(', ', '-').replace(' ', '-')}-{turn}")
            runs[name].append(run)
            parts = ", ".join(f"{part} {seconds:.3f}" for part, seconds in run.items())
            measure.say(f"round {turn + 1}, {name}: {parts} slot-seconds per trial")
    over = [
        ours["all"] - ours["training"] - plain["all"] for ours, plain in zip(runs["raycls"], runs["plain"], strict=True)
    ]
    return {"trials": trials, "slots": slots(), "runs": runs, "over_plain": numbers(over), "target": TARGET}


def _plain(folder: Path, name: str, trials: int, *, keep: bool) -> dict[str, float]:
    finished(start_plain(folder, name, trials, keep=keep), folder, name)
    clock = plain_clock(folder, name)
    return _rates(clock["starts"][0], clock["ends"])


def _ours(folder: Path, config: str, name: str, trials: int) -> dict[str, float]:
    words = (f"search.trials={trials}", f"search.max_concurrent={slots()}")
    searched = Searched.run(folder, config, name, *words)
    ends = searched.lines("end")
    bad = [line for line in ends if line["state"] != "finished"]
    if bad:
        raise SystemExit(f"{len(bad)} trials did not finish, the first: {bad[0]}")
    first = json.loads((searched.folder / "trials" / ends[0]["trial"] / "attempts.jsonl").read_text().splitlines()[0])
    rates = _rates(first["time"], [line["time"] for line in ends])
    training = [_trained(searched.history(line["trial"])) for line in ends[_skipped(trials) :]]
    return {**rates, "training": statistics.mean(training)}


def _rates(began: float, ends: list[float]) -> dict[str, float]:
    """Slot-seconds per trial: once the first few have ended, and from the first trial's start to the last one's end."""
    ends = sorted(ends)
    skipped = _skipped(len(ends))
    later = (ends[-1] - ends[skipped - 1]) * slots() / (len(ends) - skipped)
    return {"all": later, "from_the_start": (ends[-1] - began) * slots() / len(ends)}


def _skipped(trials: int) -> int:
    return min(2 * slots(), trials - 1)


def _trained(history: list[dict[str, Any]]) -> float:
    """Seconds of the steps and the evaluation: the first step, whose beginning nobody wrote down, as the others."""
    steps = [record["time"] for record in history if record["kind"] == "train"]
    evaluated = next(record["time"] for record in history if record["kind"] == "evaluate")
    return (steps[-1] - steps[0]) * len(steps) / (len(steps) - 1) + evaluated - steps[-1]


def profile(folder: Path, *, trials: int) -> dict[str, Any]:
    """Where the time of a trial goes, in this process and without Tune: milliseconds per trial of each function of
    ours with all that it calls, under cProfile (which slows Python down, and neither the disk nor the kernels).
    """
    run = load(folder / write_tiny(folder), [f"data.source.path={folder / 'tiny.npz'}"]).run
    shared = trial.Shared(
        config=to_dict(run),
        dataset=open_dataset(run.data),
        trials=str(folder / "profile"),
        device="cpu",
        workdir=str(folder),
        command=(),
        mailbox=None,
    )
    gc.freeze()
    watch = cProfile.Profile()
    for number in range(2 + trials):
        task = Task(f"{number:04d}", number, {"optim.lr": 0.01 + 0.001 * number})
        if number < 2:  # what a process does once
            trial._run(task, None, shared, _Answers(), lambda: Reason.NONE)
        else:
            watch.runcall(trial._run, task, None, shared, _Answers(), lambda: Reason.NONE)
    gc.unfreeze()
    return _told(watch, trials)


class _Answers(trial._Talk):
    """Whoever asks may go on."""

    def report(self, kind: str, **facts: Any) -> Reason:
        return Reason.NONE

    def close(self, **facts: Any) -> None:
        if facts["state"] != "finished":
            raise SystemExit(f"the profiled trial ended: {facts}")


def _told(watch: cProfile.Profile, trials: int) -> dict[str, Any]:
    stats: Any = pstats.Stats(watch)
    whole = stats.total_tt
    found = []
    for (file, _, function), (_, calls, _own, cumulative, _) in stats.stats.items():
        ours = f"{os.sep}raycls{os.sep}" in file
        if (ours or function in _SYSTEM) and cumulative >= whole * _LEAST:
            where = f"{file.rpartition(f'{os.sep}raycls{os.sep}')[2]}:{function}" if ours else function
            found.append({"function": where, "ms": 1000 * cumulative / trials, "calls": calls / trials})
    found.sort(key=lambda row: -row["ms"])
    measure.say(f"one trial in this process: {1000 * whole / trials:.0f} ms under the profiler, with all below")
    for row in found[:_LISTED]:
        measure.say(f"{row['ms']:8.1f} ms {row['calls']:6.0f} x  {row['function']}")
    return {"ms": round(1000 * whole / trials, 1), "functions": found}
