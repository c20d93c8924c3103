"""`raycls WORDS...` in this process, and what stands for the trainer behind it."""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raycls.run.outcome import Outcome
from raycls.session.scoring.options import Scoring
from raycls.tasks.classification import summarise

SUMMARY = summarise(np.array([[3, 1], [0, 4]]), loss_sum=4.0, top5=8, classes=("cat", "dog"))


@dataclass
class Result:
    code: int
    out: str
    err: str


class Trainer(types.ModuleType):
    """Stands for raycls.launch.trainer: notes its calls, and returns or raises what the test wants."""

    def __init__(self) -> None:
        super().__init__("raycls.launch.trainer")
        self.calls: list[tuple[Any, ...]] = []
        self.outcome = Outcome("done", "runs/pets", 10, 1.0, None, None, 0, 1.0)
        self.error: Exception | None = None

    def train(self, run: Any, *, new: bool, command: list[str], display: Any) -> Outcome:
        self.calls.append((run, new, command))
        if self.error is not None:
            raise self.error
        display.finish(self.outcome)
        return self.outcome

    def evaluate(
        self,
        folder: str,
        *,
        split: str | None,
        data: str | None,
        extra_classes: str,
        weights: str | None,
        scoring: Scoring,
        overrides: Any,
        display: Any,
    ) -> dict[str, Any]:
        other = () if data is None else (data, extra_classes)
        other += () if weights is None else (weights,)
        other += () if scoring == Scoring() else (scoring,)
        self.calls.append((folder, split, *other, tuple(overrides)))
        return SUMMARY


def make_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
