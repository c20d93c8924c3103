"""Runs of the command line on a real Ray, and what they left: weights, ledger, progress, a cluster as it was."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.jobs import weights
from harness.processes import Command, describe, raycls
from raycls.run.folder import RunFolder
from raycls.run.ledgers import sample_ledger as ledgers

Lines = dict[tuple[int, int, int], tuple[list[int], list[str]]]


@dataclass(frozen=True)
class Site:
    """A working directory with a config; runs lie under `runs/`. `runs/reference` is the uninterrupted one."""

    folder: Path

    def raycls(self, *words: str, name: str = "raycls", env: dict[str, str] | None = None) -> Command:
        """Start a command here: on a private Ray, unless `env` names another one."""
        return raycls(self.folder, *words, name=name, env={"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": "", **(env or {})})

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def slow(self, on: bool) -> None:
        """Whether an augmented image takes its time, so that a test can meet a run at a certain step."""
        flag = self.folder / "slow"
        if on:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)

    def step(self, name: str) -> int:
        """The last step that the run has logged, 0 before the first one."""
        steps = [json.loads(line)["step"] for line in self.history(name)]
        return steps[-1] if steps else 0

    def history(self, name: str) -> list[str]:
        """The whole lines of the history: the last one may be on its way."""
        history = self.run(name) / "history.jsonl"
        lines = history.read_text().splitlines() if history.exists() else []
        return [line for line in lines if line.endswith("}")]

    def attempts(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run(name) / "attempts.jsonl").read_text().splitlines()]

    def assert_same(self, name: str, reference: str = "reference") -> None:
        """The run has the weights and the ledger of another one, byte for byte, and the ledger holds."""
        assert weights(self.run(name)) == weights(self.run(reference))
        assert seen(self.run(name)) == seen(self.run(reference))
        report = ledgers.check(RunFolder(str(self.run(name))))
        assert report.ok, report.problems


def seen(folder: Path) -> Lines:
    """`(epoch, step, micro-batch)` to sample ids and digests. A step that was done twice saw the same both times."""
    lines: Lines = {}
    for file in sorted((folder / "ledger").iterdir()):
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the last line of a rank that was killed
                continue
            what = (line["ids"], line["sha256"])
            where = (line["epoch"], line["step"], line["micro"])
            assert lines.setdefault(where, what) == what, f"{where} differs between two attempts"
    return lines


@dataclass(frozen=True)
class Foreign:
    """A cluster that nobody of ours started. `environment` is what a command needs to join it."""

    head: Command
    environment: dict[str, str]
    dashboard: str = ""
    """The address of its dashboard, where it has one."""
    folder: Path = Path()
    """Where Ray keeps its files."""

    def assert_idle(self, seconds: float = 30.0) -> None:
        """Wait until no worker of this cluster does anything: an actor shows its class as its title."""
        end = time.monotonic() + seconds
        while busy := [title for title in map(describe, self.head.processes()) if _is_busy(title)]:
            assert time.monotonic() < end, f"still there after {seconds:g} s: {busy}"
            time.sleep(0.2)


def _is_busy(title: str) -> bool:
    name = title.partition(" ")[2]
    return name.startswith("ray::") and not name.startswith(_RAYS_OWN)


_RAYS_OWN = (
    "ray::IDLE",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    # Ray Data makes these once per cluster, for all jobs, and keeps them.
    "ray::_AutoscalingCoordinatorActor",
    "ray::_StatsActor",
)
