"""A run whose evaluations somebody else judges: a trial of a search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raycls.launch.records import Recorder
from raycls.train.state import TrainState

__all__ = ["Judged"]


class Judged:
    """Hands every evaluation to the search that this run is a trial of, at the step boundary that follows it.

    By then its checkpoint is under way too; a verdict that comes after it is on the disk can rely on it.
    `decide` is asked on rank 0 alone, and None where nobody judges.
    """

    def __init__(self, decide: Callable[[dict[str, Any]], str] | None, stop_requested: Callable[[], str]) -> None:
        self._decide, self._stop_requested = decide, stop_requested
        self._state: TrainState | None = None
        self._recorder: Recorder | None = None
        self._judged = 0

    def watch(self, state: TrainState, recorder: Recorder) -> None:
        self._state, self._recorder = state, recorder
        self._judged = state.last["step"] if state.last is not None else 0

    def stop_requested(self) -> str:
        """The verdict on the newest evaluation, else whatever else asks the run to stop."""
        return self.verdict() or self._stop_requested()

    def verdict(self) -> str:
        """Empty, or the reason to stop; after the last step it changes nothing any more."""
        state, recorder = self._state, self._recorder
        if self._decide is None or state is None or recorder is None or state.last is None:
            return ""
        if state.last["step"] <= self._judged:
            return ""
        self._judged = state.last["step"]
        if recorder.writer is not None:
            recorder.writer.settle()
        return self._decide({**state.last, "seconds": state.elapsed})
