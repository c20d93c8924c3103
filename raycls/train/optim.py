"""When to give up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from raycls.config.names.metrics import Mode
from raycls.config.sections.train import EarlyStopConfig
from raycls.train.schedules import improves

__all__ = ["EarlyStop"]


@dataclass
class EarlyStop:
    """Ends a run at the `patience`-th evaluation in a row without improvement. Its state is plain JSON."""

    patience: int | Literal["off"]
    min_delta: float
    mode: Mode
    best: float | None = None
    bad: int = 0

    @classmethod
    def of(cls, config: EarlyStopConfig, mode: Mode) -> EarlyStop:
        """As the config says, at the start of a run; `mode` is that of its `evaluate.metric`."""
        return cls(config.patience, config.min_delta, mode)

    def update(self, value: float) -> bool:
        """Take the metric of one evaluation; True when the run should end.

        An improvement changes the best value by `min_delta` or more. A value that is not finite is none.
        """
        if improves(value, self.best, self.mode, self.min_delta):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return self.patience != "off" and self.bad >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key in ("best", "bad")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.bad = state["best"], state["bad"]
