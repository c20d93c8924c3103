"""`search.py many`: what a search of many short trials takes more with every trial: memory, threads, files.

The driver, the processes of the trials and those of Ray are looked at twice a second from outside. Growth per trial is
the slope of a straight line through the second half of the search, over the trials that had ended by then: what is
still being imported or filled in the first half is not in it.
"""

from __future__ import annotations

import bisect
import math
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import psutil
from searching import Searched, finished, plain_clock, slots, start_plain, write_tiny

__all__ = ["FLAT", "growth"]

FLAT = 32.0
"""KiB per trial: what of a driver's memory is called flat. Tune keeps an object of 12 to 25 KiB for every trial, in its
plain form too; a thousand trials are then 3 % of what a driver takes."""
_EVERY = 0.5
_EVERY_EMPTY = 0.05
"""Seconds between two looks; empty trials are over sooner."""
_TRIAL = ("ray::TrialProcess", "ray::ResourceTrainable")
Fit = dict[str, float | None]
_COUNTS = {"kib": "KiB resident", "threads": "threads", "open_files": "open files", "processes": "processes"}


def growth(folder: Path, ray_folder: Path, *, trials: int, plain: bool) -> dict[str, Any]:
    """Play a search of `trials` trials and watch it; with `plain` the driver of plain Tune as well.

    `ray_folder` is where Ray keeps its sockets, logs and sessions.
    """
    config, temporary = write_tiny(folder), folder / "temporary"
    temporary.mkdir()
    searched = Searched(folder / "runs" / "many")
    words = (f"search.trials={trials}", f"search.max_concurrent={slots()}")
    process = searched.start(config, *words, environment={"TMPDIR": str(temporary)})
    places = {"ray": ray_folder, "temporary": temporary, "trials": searched.folder / "trials"}
    samples = _watch(process, places, _EVERY)
    finished(process, folder, "many")
    ends = sorted(line["time"] for line in searched.lines("end") if line["state"] == "finished")
    if len(ends) != trials:
        raise SystemExit(f"{len(ends)} of {trials} trials finished")
    measured = [(bisect.bisect(ends, sample["time"]), sample) for sample in samples]
    later = [(ended, sample) for ended, sample in measured if trials / 2 <= ended < trials]
    groups = {
        group: {count: _fit([(ended, sample[group][count]) for ended, sample in later]) for count in _COUNTS}
        for group in (*_GROUPS, "all")
    }
    files = {place: _fit([(ended, sample["files"][place]) for ended, sample in later]) for place in places}
    lines = {
        kind: sum(line["kind"] == kind for line in searched.lines()) / trials for kind in ("trial", "result", "end")
    }
    yardstick = _plain(folder, trials) if plain else _fit([])
    _tell(groups, files, lines, yardstick)
    return {
        "trials": trials,
        "seconds": round(ends[-1] - ends[0], 1),
        "groups": groups,
        "plain_driver_kib": yardstick,
        "files": files,
        "ledger_lines_per_trial": lines,
        "ledger_lines": len(searched.lines()),
        "files_left_in_temporary": _files(temporary),
        "flat": FLAT,
        "samples": [{"ended": ended, **sample} for ended, sample in measured],
    }


def _plain(folder: Path, trials: int) -> Fit:
    """The same of the driver's memory, in plain Tune with an empty function and as many trials."""
    process = start_plain(folder, "plain", trials, keep=True)
    samples = _watch(process, {}, _EVERY_EMPTY)
    finished(process, folder, "plain")
    ends = sorted(plain_clock(folder, "plain")["ends"])
    measured = [(bisect.bisect(ends, sample["time"]), sample["driver"]["kib"]) for sample in samples]
    return _fit([(ended, kib) for ended, kib in measured if trials / 2 <= ended < trials])


def _tell(groups: dict[str, Any], files: dict[str, Any], lines: dict[str, float], plain: Fit) -> None:
    for group, counts in groups.items():
        parts = [f"{_COUNTS[name]} {fit['middle'] or 0:.0f} {_slope(fit)}" for name, fit in counts.items()]
        measure.say(f"{_GROUPS.get(group, 'all of these'):32} {'; '.join(parts)}")
    for place, fit in files.items():
        measure.say(f"files in {_PLACES[place]}: {fit['middle'] or 0:.0f} {_slope(fit)}")
    measure.say("lines of the ledger per trial: " + ", ".join(f"{kind} {count:g}" for kind, count in lines.items()))
    own = _slope(groups["driver"]["kib"])
    measure.say(f"the driver's KiB: {own}, called flat below {FLAT:g}; that of plain Tune {_slope(plain)}")


def _slope(fit: Fit) -> str:
    if fit["per_trial"] is None:
        return "(too few samples)"
    return f"({fit['per_trial']:+.3f} +- {fit['error']:.3f} per trial)"


_GROUPS = {
    "driver": "driver",
    "trials": "processes of the trials",
    "raylet": "raylet",
    "gcs_server": "server of the cluster's state",
    "others": "others of Ray",
}
_PLACES = {"ray": "Ray's folder", "temporary": "the temporary folder", "trials": "the trials' run folders"}


def _watch(process: subprocess.Popen[bytes], places: dict[str, Path], every: float) -> list[dict[str, Any]]:
    """What is there at each moment, until the process ends."""
    samples = []
    while process.poll() is None:
        sample: dict[str, Any] = {group: dict.fromkeys(_COUNTS, 0) for group in (*_GROUPS, "all")}
        for one in psutil.Process().children(recursive=True):
            try:
                seen = _seen(one)
                group = "driver" if one.pid == process.pid else _group(one)
            except psutil.Error:  # it has just ended
                continue
            for counts in (sample[group], sample["all"]):
                for name, value in seen.items():
                    counts[name] += value
        samples.append({"time": time.time(), **sample, "files": {name: _files(path) for name, path in places.items()}})
        time.sleep(every)
    return samples


def _seen(one: psutil.Process) -> dict[str, float]:
    with one.oneshot():
        return {
            "kib": one.memory_info().rss / 1024,
            "threads": one.num_threads(),
            "open_files": one.num_fds(),
            "processes": 1,
        }


def _group(one: psutil.Process) -> str:
    """Ray writes what a process does into its command line, of a trial's the name of Tune's class around ours."""
    if (one.cmdline() or [""])[0].startswith(_TRIAL):
        return "trials"
    return one.name() if one.name() in ("raylet", "gcs_server") else "others"


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _fit(points: Sequence[tuple[int, float]]) -> Fit:
    """A straight line: its value in the middle, its slope per trial and the slope's standard error; the last two None
    where there are too few points.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if len(set(xs)) < 3:
        return {"middle": ys[-1] if ys else None, "per_trial": None, "error": None}
    slope, intercept = statistics.linear_regression(xs, ys)
    middle = statistics.mean(xs)
    left = sum((y - slope * x - intercept) ** 2 for x, y in points)
    error = math.sqrt(left / (len(xs) - 2) / sum((x - middle) ** 2 for x in xs))
    return {"middle": round(slope * middle + intercept, 1), "per_trial": round(slope, 4), "error": round(error, 4)}
