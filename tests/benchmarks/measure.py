"""What the benchmarks share: CPU-seconds of processes, ratios of pairs, and the line that says what was measured on.

Every comparison is made of pairs: two variants that ran one after the other in the same run, the order changing
from pair to pair. What is reported is the median of the ratios within pairs, so that a machine which is slower for
a minute slows both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from scipy import stats

__all__ = [
    "Labelled",
    "Tallied",
    "Usage",
    "arguments",
    "begin",
    "finish",
    "hardware",
    "interval",
    "mine",
    "name_of",
    "ratios",
    "say",
    "spread",
    "this_thread",
    "usage",
]


class Tallied:
    """An augmentation that leaves a byte in a file for each image it made, in whichever process.

    The length of the file is the number of images made so far: exact at any moment, also for what is still on its
    way to the consumer. It costs one system call of a microsecond or two per image.
    """

    def __init__(self, augment: Callable[..., Any], file: Path) -> None:
        self._augment, self._file, self._handle = augment, file, -1

    def __call__(self, image: Any, key: tuple[int, int, int]) -> Any:
        made = self._augment(image, key)
        if self._handle < 0:
            self._handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(self._handle, b".")
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Tallied, (self._augment, self._file)


class Labelled:
    """What the task classification makes of a sample, with an augmentation of the benchmark's own."""

    def __init__(self, augment: Callable[..., Any]) -> None:
        self._augment = augment

    def __call__(self, split: Any, index: int, key: tuple[int, int, int], *, train: bool) -> dict[str, Any]:
        return {"image": self._augment(split.pixels(index), key), "label": split.labels[index]}


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every script has: `--json FILE` and `--quick`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the script runs, measures nothing")
    return parser


def hardware() -> dict[str, Any]:
    """The machine: processor, cores that this process may use, memory, load now, versions."""
    import torch

    return {
        "cpu": _cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def mine() -> float:
    """CPU-seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def this_thread() -> float:
    """CPU-seconds of the calling thread alone: of a loop in a process whose other threads belong to something else."""
    return time.thread_time()


@dataclass(frozen=True)
class Usage:
    """CPU-seconds of processes at one moment, by process id, and what each was called then."""

    seconds: dict[int, float]
    names: dict[int, str]

    def since(self, before: Usage) -> dict[str, float]:
        """CPU-seconds between two moments, by name. What ended in between counts for the parent that waited for it."""
        used: dict[str, float] = {}
        for pid, seconds in self.seconds.items():
            name = self.names[pid]
            used[name] = used.get(name, 0.0) + seconds - before.seconds.get(pid, 0.0)
        return used


def usage(*, without: Usage | None = None) -> Usage:
    """Of this process and everything below it now, apart from the other processes of `without`."""
    me = psutil.Process()
    seconds: dict[int, float] = {}
    names: dict[int, str] = {}
    for process in (me, *me.children(recursive=True)):
        if without is not None and process != me and process.pid in without.seconds:
            continue
        try:
            times, names[process.pid] = process.cpu_times(), name_of(process)
        except psutil.Error:
            continue
        seconds[process.pid] = sum(times[:4])  # user and system, its own and those of children that have ended
    return Usage(seconds, names)


def ratios(pairs: Sequence[tuple[float, float]]) -> dict[str, float | int]:
    """Median, least and greatest of `first / second` over pairs, and how many there are."""
    values = [first / second for first, second in pairs]
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "n": len(values),
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of two or more values, by Student's t."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = float(statistics.fmean(values))
    return round(mean - half, 4), round(mean + half, 4)


def spread(found: dict[str, float | int]) -> str:
    """What `ratios` found, for a line of text."""
    return f"{found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f}, n={found['n']})"


def begin(benchmark: str) -> dict[str, Any]:
    """The start of a result, with the hardware, whose line is printed."""
    on = hardware()
    print(
        f"{on['cores']} cores of {on['cpu']} ({on['capability']}), {on['memory_gib']} GiB, "
        f"torch {on['torch']}, load {on['load_average_1min']} at the start",
        flush=True,
    )
    return {"benchmark": benchmark, "hardware": on}


def say(line: str) -> None:
    """Print a line at once: a benchmark may take minutes."""
    print(line, flush=True)


def finish(result: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """Write `result` as JSON where a path is given, with the load at the end. Returns it."""
    result["load_average_1min_at_the_end"] = round(os.getloadavg()[0], 2)
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n")
    return result


def name_of(process: psutil.Process) -> str:
    """What a process is: Ray writes what a worker does into its command line, so that is cut to what stays."""
    if process.pid == os.getpid():
        return "this process"
    words = process.cmdline() or [process.name()]
    title = words[0].split()[0]
    if title.startswith("ray::"):
        task = title == "ray::IDLE" or "(" in title
        return "ray data worker" if task else title.split(".")[0]
    if process.name().startswith("python"):
        return next((Path(word).stem for word in words[1:] if word.endswith(".py")), "python")
    return process.name()


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
