"""Why a training stops: one name for what a signal, a clock, a search and the ranks mean by it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """Why a training, or one group of its workers, ends. The values are what result files and ledgers spell.

    The order is that of hurry: where ranks ask for different things, the last one counts.
    """

    NONE = ""
    """It does not end."""
    EARLY = "early"
    """The metric improves no more, see `train.early_stop`."""
    DONE = "done"
    """After the last step of the plan."""
    RESIZE = "resize"
    PREEMPTED = "preempted"
    BUDGET = "budget"
    SEARCH = "search"
    """The search that the run is a trial of stops it."""
    SIGINT = "sigint"
    SIGTERM = "sigterm"
    ERROR = "error"
    """A rank has an error: the others raise one too."""
    ABORT = "abort"
    """Every worker leaves at once, whatever it waits for."""
    STALLED = "stalled"
    """As `ABORT`, after a note of where every thread stands."""

    @property
    def moves(self) -> bool:
        """Whether another group of workers resumes the run at once."""
        return self in (Reason.RESIZE, Reason.PREEMPTED)

    @property
    def signal(self) -> bool:
        """Whether a signal asks for it: the machine may be gone soon, so not even an evaluation is finished."""
        return self in (Reason.SIGINT, Reason.SIGTERM)

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped before an end of its own: its `model/` is not written."""
        return self.moves or self.signal or self is Reason.SEARCH

    @property
    def aborts(self) -> bool:
        """Whether a process that hears it ends without another step."""
        return self in (Reason.ABORT, Reason.STALLED)
