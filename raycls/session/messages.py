"""What workers and drivers tell each other about a run: one class for each thing that can be told.

`history.jsonl` keeps plain records, because files outlive classes: `Trained` and `Evaluated` carry one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raycls.progress import Progress, Steps
from raycls.train.reasons import Reason
from raycls.train.recovery.divided import Divided


@dataclass(frozen=True)
class Event:
    """A line for the screen."""

    text: str


@dataclass(frozen=True)
class Advice(Event):
    """A warning that is the same for all trials of a search, which tells it once."""

    what: str
    fix: str


@dataclass(frozen=True)
class Placing:
    """A group of so many workers is asked for."""

    workers: int


@dataclass(frozen=True)
class Reserved:
    """The id of the placement group that the workers of a trial have."""

    placement_group: str


@dataclass(frozen=True)
class Began:
    """A group of workers has come together: from here on their loss counts."""

    workers: int


@dataclass(frozen=True)
class Started(Began):
    """It is about to train, from the state after `step` steps."""

    step: int
    unevaluated: bool
    """Whether the evaluation after `step` is still to be done."""
    attempt: int
    precision: str
    divided: Divided = ()


@dataclass(frozen=True)
class Working:
    """What rank 0 does, for `ago` seconds now; `waits` for data, or not. `steps`: once one was begun in this start."""

    now: Progress
    waits: bool
    ago: float
    steps: Steps | None


@dataclass(frozen=True)
class Trained:
    """A record of training in the history, and whether one of an evaluation after the same step follows."""

    record: dict[str, Any]
    evaluation_follows: bool


@dataclass(frozen=True)
class Evaluated:
    """A record of an evaluation in the history, and the metric that decides."""

    record: dict[str, Any]
    metric: str


@dataclass(frozen=True)
class Judging:
    """The facts of an evaluation: rank 0 waits for a verdict on it."""

    facts: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """The workers are gone, or (`unplaced`) found no place."""

    unplaced: bool


@dataclass(frozen=True)
class Moved:
    """The group has left for another one."""

    reason: Reason


@dataclass(frozen=True)
class Ended:
    """What the function of rank 0 returned."""

    result: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """An error of ours as JSON; `stalled` where a worker found itself hanging, and cannot leave by itself."""

    error: dict[str, Any]
    stalled: bool = False


Message = Event | Placing | Reserved | Began | Working | Trained | Evaluated | Judging | Lost | Moved | Ended | Failed
Post = Callable[[Message], None]
