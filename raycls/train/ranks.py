"""Who else is running: the rank, the world, and the few things ranks must agree on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from raycls.errors import RayclsError, TrainError
from raycls.train.reasons import Reason

__all__ = ["ABORTED", "Agreement", "Interrupted", "Pulse", "Ranks"]

_CODES = tuple(Reason)
"""Ranks agree on the greatest place of a reason here."""
ABORTED = "another worker reported an error"
_LOOK_SECONDS = 2.0
"""How often the ranks ask together whether one of their nodes is about to be taken away."""


@dataclass(frozen=True)
class Agreement:
    """What all ranks do next: stop, unless the reason is `Reason.NONE`, and save."""

    stop: Reason
    save: bool


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """An evaluation was left on every rank at the same batch: what it had counted is worth nothing.

    Caught by the loop, which saves; it never leaves it.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Pulse:
    """When this process last got on with its work, by the monotonic clock."""

    beat: float = field(default_factory=time.monotonic)


@dataclass
class Ranks:
    """One process among `world`. Without a process group `world` is 1.

    A training starts with one that knows nobody's wishes, and goes on with a copy (`dataclasses.replace`) that does:
    both share the pulse and the clock.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop_requested: Callable[[], Reason] = lambda: Reason.NONE
    """Asked on rank 0."""
    preempted: Callable[[], bool] | None = None
    """Whether a node of this group is about to be taken away: a collective call with the same answer on every rank."""
    pending_error: Callable[[], RayclsError | None] = lambda: None
    """An error that happened beside the loop, such as in the thread that writes checkpoints."""
    budget_seconds: float = 0.0
    save_seconds: float = 0.0
    elapsed_before: float = 0.0
    """Seconds of training of earlier starts."""
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _looked: float = field(default_factory=time.monotonic)
    pulse: Pulse = field(default_factory=Pulse)

    @property
    def elapsed(self) -> float:
        """Seconds of training over all starts."""
        return self.elapsed_before + time.monotonic() - self._began

    def alive(self) -> None:
        """This rank gets on with its work."""
        self.pulse.beat = time.monotonic()

    def go_on(self, error: RayclsError | None = None) -> None:
        """Before every batch of an evaluation: what `agree` is before a step.

        Raises Interrupted where the ranks leave the evaluation, and like `agree` where one has an error.
        """
        stop = self._agree(error, evaluating=True).stop
        if stop:
            raise Interrupted(stop)

    def agree(self, error: RayclsError | None = None) -> Agreement:
        """Before every step: whether to go on, decided by all ranks together.

        A rank that has an error says so here, so that no other rank waits for it in a collective for ever.
        Raises that error, or on the other ranks a TrainError that says `ABORTED`.
        """
        return self._agree(error, evaluating=False)

    def _agree(self, error: RayclsError | None, *, evaluating: bool) -> Agreement:
        self.alive()
        now = self.pulse.beat
        error = error or self.pending_error()
        late = self.save_seconds > 0 and now - self._saved >= self.save_seconds
        save = self.rank == 0 and late and not evaluating
        look = self.rank == 0 and self.preempted is not None and now - self._looked >= _LOOK_SECONDS
        wish = Reason.ERROR if error else self._wish()
        if evaluating and not (wish.signal or error):
            wish = Reason.NONE
        code, saves, looks = self._most(_CODES.index(wish), int(save), int(look))
        reason = _CODES[code]
        if error is not None:
            raise error
        if reason is Reason.ERROR:
            raise TrainError(ABORTED)
        if saves:
            self._saved = now
        if looks and self.preempted is not None:
            self._looked = now
            if self.preempted():
                reason = max(reason, Reason.PREEMPTED, key=_CODES.index)
        return Agreement(reason, bool(saves))

    def check(self, error: RayclsError | None = None) -> None:
        """Raise on every rank where one rank has an error; a barrier otherwise."""
        failed = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise TrainError(ABORTED)

    def any(self, value: bool) -> bool:
        """Whether one rank has True here; a collective call."""
        return bool(self._most(int(value))[0])

    def same(self, value: int) -> bool:
        """Whether all ranks have the same `value`, of at most 32 bits."""
        most, least = self._most(value, -value)
        return most == -least

    def _most(self, *values: int) -> tuple[int, ...]:
        if self.world == 1:
            return values
        flags = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return tuple(flags.tolist())

    def _wish(self) -> Reason:
        if self.rank != 0:
            return Reason.NONE
        if asked := self.stop_requested():
            return asked
        return Reason.BUDGET if self.budget_seconds and self.elapsed >= self.budget_seconds else Reason.NONE

    def first(self, value: Any) -> Any:
        """What rank 0 passes in, on every rank; a collective call."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def known(self, value: Any) -> Any:
        """What the first rank that does not pass None passes in, on every rank; a collective call."""
        if (found := self.first(value)) is not None:
            return found
        return next((each for each in self.gather(value) if each is not None), None)

    def gather(self, value: Any) -> list[Any]:
        """What every rank passes in, in the order of the ranks, on every rank; a collective call."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def to_first(self, tensor: torch.Tensor, owner: int) -> None:
        """Copy a CPU tensor of the rank `owner` into that of rank 0, of the same shape and kind; these two call."""
        if self.rank == 0:
            dist.recv(tensor, owner)
        else:
            dist.send(tensor, 0)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add a CPU tensor up over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor
