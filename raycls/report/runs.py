"""What a run folder says about a run, read for those who look at it: no torch, and nothing but its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raycls.config import load as config
from raycls.config.load import Difference, Loaded
from raycls.report.series import Panel, panels
from raycls.run import history
from raycls.run.folder import Attempt, RunFolder, read_json_lines

__all__ = ["Start", "Told", "tell"]


@dataclass(frozen=True)
class Start:
    """One attempt of a run, and how far it came."""

    attempt: Attempt
    reached: int
    """The last step that it wrote a record of."""
    ended: float | None
    """Unix time of its last record, in seconds; None where it wrote none."""
    repeated: int
    """Its steps that a later attempt did again, since the checkpoint that it resumed from."""


@dataclass(frozen=True)
class Told:
    """The files of one run. What a run under way has not written yet is None or empty."""

    folder: RunFolder
    name: str
    loaded: Loaded
    text: str
    """`config.yaml` as it is."""
    records: list[dict[str, Any]]
    starts: list[Start]
    result: dict[str, Any] | None
    environment: dict[str, Any]
    plan: dict[str, Any]
    model: dict[str, Any]

    def at(
        self,
        lines: Sequence[dict[str, Any]],
        attempts: Sequence[Attempt],
        result: dict[str, Any] | None,
        plan: dict[str, Any],
    ) -> Told:
        """The same run later, of all lines of its history by then."""
        records = history.surviving(lines, attempts)
        return replace(self, records=records, starts=_starts(attempts, lines), result=result, plan=plan)

    @property
    def config(self) -> Any:
        """The config of the run."""
        return self.loaded.run

    @property
    def classes(self) -> list[str]:
        """The names of the classes in the order of the outputs; none where the task has none."""
        return self.model.get("classes") or (self.environment.get("data") or {}).get("classes") or []

    @cached_property
    def panels(self) -> list[Panel]:
        return panels(self.records, self.config.task.name, self.config.evaluate.metric)

    @cached_property
    def differences(self) -> list[Difference]:
        """What the config sets otherwise than by default, but for the name and the place of the run."""
        found = config.difference(config.from_dict({}), self.config)
        return [item for item in found if item.path not in ("run.name", "run.storage")]

    @property
    def state(self) -> str:
        """In words: `done`, `stopped early`, and so on; `not finished` where no result was written."""
        state = str((self.result or {}).get("state", "not finished"))
        return {"early": "stopped early", "budget": "stopped by train.budget"}.get(state, state)


def tell(folder: RunFolder) -> Told:
    """Read the run in `folder`. ConfigError where there is none, CheckpointError where a file is damaged."""
    folder.store.check()
    text = folder.read_config()
    loaded = config.load_text(text, folder.store.describe(RunFolder.CONFIG))
    return Told(
        folder=folder,
        name=loaded.run.run.name,
        loaded=loaded,
        text=text,
        records=history.read(folder),
        starts=_starts(folder.attempts(), read_json_lines(folder.store, RunFolder.HISTORY)),
        result=folder.read_json(RunFolder.RESULT),
        environment=folder.read_json(RunFolder.ENV) or {},
        plan=folder.read_json(RunFolder.PLAN) or {},
        model=folder.read_json(RunFolder.MODEL_INFO) or {},
    )


def _starts(attempts: Sequence[Attempt], lines: Iterable[Mapping[str, Any]]) -> list[Start]:
    reached: dict[int, int] = {}
    ended: dict[int, float] = {}
    for line in lines:
        number, step, time = line.get("attempt"), line.get("step"), line.get("time")
        if isinstance(number, int) and isinstance(step, int) and isinstance(time, int | float):
            reached[number], ended[number] = max(step, reached.get(number, 0)), float(time)
    starts: list[Start] = []
    for index, attempt in enumerate(attempts):
        last = reached.get(attempt.attempt, attempt.step)
        first = min((later.step for later in attempts[index + 1 :]), default=last)
        starts.append(Start(attempt, last, ended.get(attempt.attempt), max(0, last - max(first, attempt.step))))
    return starts
