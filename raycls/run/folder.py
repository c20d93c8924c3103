"""The run folder: the names of what is in it, and the attempts that wrote it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycls.config.paths import expand
from raycls.config.write import override
from raycls.errors import CheckpointError, ConfigError
from raycls.run import strict_json
from raycls.run.storage.local import is_temporary
from raycls.run.storage.lock import Lock
from raycls.run.storage.store import Store
from raycls.workdir import workdir

__all__ = [
    "Attempt",
    "RunFolder",
    "parse_line",
    "read_json_lines",
    "refuse_lost",
    "refuse_own_weights",
    "survives",
    "survivors",
]

_UPLOADED = "/runtime_resources/working_dir_files/"
"""Below it Ray unpacks the working directories of jobs, and deletes them when the jobs have ended."""
_STEP = re.compile(r"step-(\d{8,})")
_STARTING_FIELDS = ("attempt", "step", "workers", "threads", "time")


@dataclass(frozen=True)
class Attempt:
    """One start of the run, or one new group of workers inside it."""

    attempt: int
    """1 for the first."""
    step: int
    """Steps that were done when it began: it resumed from this checkpoint."""
    workers: int
    threads: int
    """CPU threads of one worker."""
    time: float
    """Unix time of its start, in seconds."""
    rest: dict[str, Any] = field(default_factory=dict[str, Any])
    """Whatever else was noted."""


class RunFolder:
    """A run folder in a store. Making this object reads and creates nothing."""

    CONFIG = "config.yaml"
    ENV = "env.json"
    PLAN = "plan.json"
    SPLITS = "splits.parquet"
    HISTORY = "history.jsonl"
    HISTORY_CSV = "history.csv"
    ATTEMPTS = "attempts.jsonl"
    LEDGER = "ledger"
    CHECKPOINTS = "checkpoints"
    BEST = "best.json"
    MODEL = "model"
    WEIGHTS = "model/model.safetensors"
    MODEL_INFO = "model/model.json"
    CURVES = "curves.svg"
    EVENTS = "events"
    EXPORT = "export"
    RESULT = "result.json"
    PROBE = "probe.json"
    BENCH = "bench/model.json"
    BENCH_PLOT = "bench/model.svg"
    PREDICTIONS = "predictions"
    REPORT = "report.html"
    CARD = "model_card.md"
    TRIALS = "trials.jsonl"
    """Of a search."""
    NON_FINITE = "non_finite.jsonl"
    STACKS = "stacks"
    TRACKERS = "trackers.json"
    LOCK = "lock"

    def __init__(self, store: Store | str | Path) -> None:
        self.store = store if isinstance(store, Store) else Store(store)

    @classmethod
    def at(cls, storage: str, name: str) -> RunFolder:
        """The folder of the run `name` in `storage` (a folder or a URI)."""
        return cls(Store(storage).sub(name))

    @property
    def uri(self) -> str:
        """Opens the same folder in another process."""
        return self.store.uri

    def path(self, name: str = "") -> Path | None:
        """The local path of a file of the run, None where the run is not on a local disk."""
        return self.store.local_path(name)

    def read_json(self, name: str) -> Any:
        """What a JSON file holds, None where there is no such file. Raises CheckpointError if it is no JSON."""
        data = self.store.find_bytes(name)
        if data is None:
            return None
        try:
            return json.loads(data)
        except ValueError as error:
            raise CheckpointError(
                "a file of the run is damaged",
                where=self.store.describe(name),
                found=str(error),
                fix="put the file back from a copy, or start anew with --new",
            ) from error

    def read_config(self) -> str:
        """The text of `config.yaml`; ConfigError where there is none: then this is no run."""
        data = self.store.find_bytes(self.CONFIG)
        if data is None:
            raise ConfigError(
                "this is no run folder",
                where=self.store.describe(self.CONFIG),
                found="no such file",
                valid="the folder of a run, which has a config.yaml",
                fix="give the path of the run folder",
            )
        return data.decode()

    def write_json(self, name: str, value: object) -> None:
        """Write strict JSON, atomically. NaN and infinities become texts."""
        self.store.write_bytes(name, (strict_json.dumps(value, indent=2) + "\n").encode())

    @property
    def command(self) -> str:
        """The command that makes the weights of the run: `probe` or `train`."""
        return "probe" if self.store.exists(self.PROBE) else "train"

    def steps(self) -> list[int]:
        """Steps with a checkpoint that was written to its end, ascending. Nothing is verified."""
        found = (_STEP.fullmatch(name) for name in self.store.list(self.CHECKPOINTS))
        steps = sorted(int(match[1]) for match in found if match)
        return [step for step in steps if self.store.exists(f"{self.checkpoint(step)}/manifest.json")]

    def checkpoint(self, step: int) -> str:
        """The name of the checkpoint folder of `step`."""
        return f"{self.CHECKPOINTS}/step-{step:08d}"

    def attempts(self) -> list[Attempt]:
        """The attempts in the order of their starts."""
        found: dict[int, Attempt] = {}
        for line in read_json_lines(self.store, self.ATTEMPTS):
            try:
                numbers = [int(line[name]) for name in ("attempt", "step", "workers", "threads")]
                started = float(line["time"])
            except (KeyError, TypeError, ValueError):
                continue  # a line that a crash tore
            rest = {key: value for key, value in line.items() if key not in _STARTING_FIELDS}
            found[numbers[0]] = Attempt(*numbers, time=started, rest=rest)
        return [found[number] for number in sorted(found)]

    def begin_attempt(self, step: int, workers: int, threads: int = 1, **rest: object) -> int:
        """Note that an attempt resumes from `step` steps done; returns its number, 1 for the first.

        The result of an earlier attempt is deleted: the run is under way again.
        """
        attempts = self.attempts()
        number = attempts[-1].attempt + 1 if attempts else 1
        self._sweep()
        self.store.delete(self.RESULT)
        line = {"attempt": number, "step": step, "workers": workers, "threads": threads, "time": time.time(), **rest}
        self.store.append_line(self.ATTEMPTS, strict_json.dumps(line), sync=True)
        return number

    def set_aside(self, *, timeout: float = 0.0) -> str | None:
        """Rename the folder to `<name>.old-1`, `.old-2`, ...; returns where it is now, None if there was none.

        Raises LaunchError if a process still writes to it after `timeout` seconds. Take the lock of the new
        folder afterwards: a lock held before would move away with the old one.
        """
        if set(self.store.list()) <= {self.LOCK}:
            return None
        with Lock(self, "set the run aside", timeout=timeout):
            name = self.store.describe().rstrip("/").rpartition("/")[2]
            number = 1
            while self.store.sibling(f"{name}.old-{number}").exists():
                number += 1
            return self.store.rename(f"{name}.old-{number}", leaving=self.LOCK).describe()

    def _sweep(self) -> None:
        for folder in ("", f"{self.MODEL}/"):
            for name in self.store.list(folder):
                if is_temporary(name):
                    self.store.delete(folder + name)


def survivors(attempts: Sequence[Attempt]) -> dict[int, tuple[int, int | None]]:
    """Per attempt (first, last): its steps `first < step <= last` led to the newest state; None is no end.

    What came after a checkpoint that a later attempt resumed from was done again.
    """
    spans: dict[int, tuple[int, int | None]] = {}
    last: int | None = None
    for attempt in sorted(attempts, key=lambda item: item.attempt, reverse=True):
        spans[attempt.attempt] = (attempt.step, last)
        last = attempt.step if last is None else min(last, attempt.step)
    return spans


def read_json_lines(store: Store, name: str) -> list[dict[str, Any]]:
    """The JSON objects of a file, one per line. What a crash tore is left out; a missing file has none."""
    return [item for item in map(parse_line, store.read_lines(name)) if item is not None]


def parse_line(line: str) -> dict[str, Any] | None:
    """The JSON object in a line, None if the line is torn: no proper prefix of an object is an object."""
    try:
        item = json.loads(line)
    except ValueError:
        return None
    return item if isinstance(item, dict) else None


def survives(line: Mapping[str, Any], spans: Mapping[int, tuple[int, int | None]]) -> bool:
    """Whether `line`, which tells its `attempt` and its `step` (the steps done after it), led to the newest state.

    It did if it lies in the span of its attempt. A line without a step survives, one of an unknown attempt does not.
    """
    step, attempt = line.get("step"), line.get("attempt")
    if not isinstance(step, int | float):
        return True
    if not isinstance(attempt, int) or attempt not in spans:
        return False
    first, last = spans[attempt]
    return step > first and (last is None or step <= last)


def refuse_lost(storage: str) -> None:
    """Refuse a run folder inside the unpacked working directory of a job: it would be deleted with the job."""
    if _UPLOADED not in f"{storage}/":
        return
    raise ConfigError(
        "the run would be lost: run.storage lies in the job's copy of the working directory, which Ray deletes",
        where="run.storage",
        found=storage,
        valid="an absolute folder that every node reaches, or a URI such as s3://bucket/runs",
        fix="add run.storage=/a/shared/folder/runs to the command",
    )


def refuse_own_weights(folder: RunFolder, weights: str | None, name: str) -> None:
    """Refuse first weights that lie in the folder of the run that starts with them: it would overwrite them, or set
    them aside. So a pruned run keeps its weights while it is fine-tuned. `name` is that of the run."""
    here = folder.path()
    if weights is None or here is None:
        own = weights is not None and f"{weights.rstrip('/')}/".startswith(f"{folder.store.describe()}/")
    else:
        own = "://" not in weights and Path(workdir(), expand(weights)).resolve().is_relative_to(here.resolve())
    if own:
        raise ConfigError(
            "the weights to start from are the run's own, which it would overwrite",
            where="model.weights",
            found=f"{weights}, in the folder of this run",
            valid="weights of another run",
            fix=f"train under another name: {override('run.name', f'{name}-finetuned')}",
        )
