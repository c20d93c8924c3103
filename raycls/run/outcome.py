"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `done`, `early`, `budget`, `stopped`, or `already` where there was nothing left to do."""

    state: str
    folder: str
    step: int
    epochs: float
    best: dict[str, Any] | None
    final: dict[str, Any] | None
    exit_code: int
    seconds: float
    kept: dict[str, Any] | None = None
    """Which weights `model/` holds, and why; None where the run is to be resumed, or an earlier version ended it."""
