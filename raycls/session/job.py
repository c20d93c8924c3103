"""What is to be done, and the place of one process among those that do it: plain values, and no Ray.

The world (rank, size, how to share an object, whom to tell) is handed in, for a worker of a cluster and for this
process alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import torch

from raycls.data.source import Dataset
from raycls.errors import RayclsError
from raycls.run.kept import Weights
from raycls.session.hanging.stall import leave
from raycls.session.messages import Post
from raycls.session.scoring.options import Scoring
from raycls.train.reasons import Reason

__all__ = ["Decide", "Job", "World"]

Decide = Callable[[dict[str, Any]], Reason]
"""The facts of an evaluation to `Reason.NONE`, or to the reason to stop after it."""


@dataclass(frozen=True)
class Job:
    """What is to be done, as plain values that travel to every worker."""

    config: dict[str, Any]
    folder: str
    plan: dict[str, Any]
    dataset: Dataset
    device: str
    """`cpu` or `cuda`."""
    executor: str
    """Who decodes; `why` it is this one, where `data.executor` is `auto`."""
    workdir: str
    """Where plug-ins may come from: the working directory of the command."""
    nonce: str
    """sha256 of the run's `env.json` as the driver sees it: whether a worker sees the same folder."""
    split: str = ""
    """For an evaluation: the split."""
    weights: Weights | None = None
    """For an evaluation: which weights; None is what `model/` holds."""
    scoring: Scoring | None = None
    """For an evaluation: what is measured of each row; None where counts are enough, as in a training."""
    curves: bool = True
    """Whether `curves.svg` is drawn: it takes longer than a small trial, and a search draws all of its trials."""
    search: str = ""
    """The search that this run is a trial of."""
    why: str = ""
    ahead: bool = False
    """Whether the executor `inline` makes slices in a thread during the steps."""
    dashboard: str = ""
    """The page of the Ray job, where the run is one."""
    start: str = field(default_factory=lambda: uuid4().hex)
    """Which start of the run this is: its groups of workers, one after another, are one family of writers."""


@dataclass
class World:
    """This worker's place among the others, and its lines to them and to the driver."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    share: Callable[[Any], Any] = lambda value: value
    """Hands every rank what rank 0 passes in; a collective call."""
    post: Post = lambda message: None
    """Tells the driver something for its display."""
    stop_requested: Callable[[], Reason] = lambda: Reason.NONE
    preempted: Callable[[], bool] | None = None
    """Whether a node of this group is about to be taken away; a collective call, the same on every rank."""
    stalled: Callable[[RayclsError], None] = leave
    """Told, in a thread of its own, that this worker does not get on: it ends the process, or has it ended."""
    gauge: Callable[[dict[str, Any]], None] = lambda record: None
    """Handed every record of rank 0, for Ray's metrics."""
    decide: Decide | None = None
    """Asked on rank 0 about each evaluation, once its checkpoint is on the disk and before the next step. Of a search:
    a run of its own has nobody to ask."""
