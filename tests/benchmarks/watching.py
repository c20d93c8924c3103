"""What a command and the processes below it use, and when each of them begins: sampled ten times a second."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

__all__ = ["Seen", "Watched", "watch"]

_EVERY = 0.1


@dataclass
class Seen:
    """One process: what it is called at last, when it began (seconds after the command), and its CPU-seconds."""

    name: str
    began: float
    cpu: float


@dataclass
class Watched:
    """A command that has ended."""

    began: float
    """When, in seconds since the epoch."""
    wall: float
    first_line: float | None
    """Seconds until it wrote its first line."""
    samples: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """(seconds, CPU-seconds of all processes so far)."""
    processes: dict[tuple[int, float], Seen] = field(default_factory=dict[tuple[int, float], Seen])

    @property
    def cpu(self) -> float:
        """CPU-seconds of the command and all below it."""
        return self.samples[-1][1]

    def cpu_at(self, seconds: float) -> float:
        """CPU-seconds until then: of the first sample that is not before it."""
        return next((cpu for moment, cpu in self.samples if moment >= seconds), self.cpu)

    def table(self) -> list[Seen]:
        """The processes that used a twentieth of a second or more, as they began."""
        return sorted((each for each in self.processes.values() if each.cpu >= 0.05), key=lambda each: each.began)


def watch(words: Sequence[str], folder: Path, log: Path, environment: dict[str, str]) -> Watched:
    """Run a command in `folder`; its output goes to `log`. SystemExit with its text where it fails."""
    began = time.time()
    with log.open("wb") as output, log.open("rb") as reading:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
        found = Watched(began, 0.0, None)
        while process.poll() is None:
            _sample(found, process.pid, began, reading)
            time.sleep(_EVERY)
    found.wall = time.time() - began
    found.samples.append((found.wall, sum(each.cpu for each in found.processes.values())))
    text = log.read_text(errors="replace")
    found.first_line = found.first_line or (found.wall if text else None)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{text}")
    return found


def _sample(found: Watched, top: int, began: float, reading: IO[bytes]) -> None:
    if found.first_line is None and reading.read(1):
        found.first_line = time.time() - began
    try:
        command = psutil.Process(top)
        below = [command, *command.children(recursive=True)]
    except psutil.Error:
        below = []
    for each in below:
        try:
            times, key = each.cpu_times(), (each.pid, each.create_time())
            name = _name(each, top)
        except psutil.Error:
            continue
        seen = found.processes.setdefault(key, Seen(name, each.create_time() - began, 0.0))
        seen.name, seen.cpu = name or seen.name, times.user + times.system
    found.samples.append((time.time() - began, sum(each.cpu for each in found.processes.values())))


def _name(process: psutil.Process, top: int) -> str:
    """What a process is, in words."""
    if process.pid == top:
        return "the command"
    words = process.cmdline()
    text = " ".join(words)
    if words and words[0].startswith("ray::"):
        return words[0].split(".")[0]
    for part, name in _KNOWN.items():
        if part in text:
            return name
    if process.ppid() == top and words == psutil.Process(top).cmdline():
        return "the warm process"
    return Path(words[0]).name if words else ""


_KNOWN = {
    "gcs_server": "Ray's gcs_server",
    "raylet/raylet": "Ray's raylet",
    "monitor.py": "Ray's monitor",
    "dashboard/dashboard.py": "Ray's dashboard",
    "log_monitor": "Ray's log monitor",
    "warm/launcher.py": "a launcher",
    "cluster/private.py": "the guard",
    "default_worker.py": "a worker that starts",
    "startup_torchrun.py": "a rank of torchrun",
}
