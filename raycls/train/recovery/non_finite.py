"""Steps whose gradient is not finite: left out, and after too many in a row the run goes back to an earlier state.

What came since that state is left out of the training. PaLM was trained so: "we re-started training from a checkpoint
roughly 100 steps before the spike started, and skipped roughly 200-500 data batches" (Chowdhery et al. 2022, section
5.1). Batches that follow are trained at the steps that they had: order, schedule and the end of the run stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from raycls.data.order import Order
from raycls.errors import TrainError
from raycls.quantities import plural
from raycls.train.state import TrainState

__all__ = ["NonFinite", "not_finite", "searching"]

_MOST_SKIPPED = 10
"""Steps in a row without a finite gradient after which a run is given up, where nothing else is said."""


@dataclass(frozen=True)
class NonFinite:
    """What follows from a step without a finite gradient."""

    note: Callable[[int, float, float], None] | None = None
    """Hears of each (step, loss, norm); None: the first one ends the run."""
    most: int = _MOST_SKIPPED
    """In a row."""
    rewind: Callable[[TrainState], None] | None = None
    """On every rank: gives the state what an earlier checkpoint has; None: the run ends instead."""
    times: int = 0
    """How often."""

    def skip(self, state: TrainState, order: Order, loss: float, norm: float) -> bool:
        """Count the step; whether the run has to go back now, or TrainError where it cannot, or is not to."""
        if searching(state.scaler):
            return False
        state.skipped_in_a_row += 1
        refused = self.note is None and not state.scaler.is_enabled()
        if self.note is not None:
            self.note(state.step, loss, norm)
        if not refused and state.skipped_in_a_row < self.most:
            return False
        if refused or self.rewind is None or not state.good or state.rewinds >= self.times:
            raise not_finite(state, order, loss, norm, refused=refused, rewinds=self.rewind is not None)
        return True

    def go_back(self, state: TrainState) -> None:
        """Where `skip` said so; on every rank."""
        if self.rewind is not None:
            self.rewind(state)


def searching(scaler: torch.amp.GradScaler) -> bool:
    """Whether loss scaling (fp16) still has room to fall: steps that overflow until then are its way of working."""
    return scaler.is_enabled() and scaler.get_scale() > 1


def not_finite(
    state: TrainState, order: Order, loss: float, norm: float, *, refused: bool, rewinds: bool
) -> TrainError:
    """`refused`: whether no such step is skipped; `rewinds`: whether the run may go back to an earlier checkpoint."""
    before = f"; the run went back {plural(state.rewinds, 'time')} before" if state.rewinds else ""
    if rewinds and not state.good:
        before = "; there is no earlier checkpoint to go back to"
    several = not refused and state.skipped_in_a_row > 1
    row = f": {state.skipped_in_a_row} such steps in a row end the run" if several else ""
    skip = ", or train.non_finite=skip" if refused else ""  # which would skip no more steps
    return TrainError(
        f"step {state.step + 1} has a gradient that is not finite (loss {loss:g}, norm {norm:g}){row}",
        found=f"epoch {order.epoch(state.step)}, samples {order.batch(state.step)[:8].tolist()} ...{before}",
        fix=f"lower optim.lr, set optim.clip_norm or schedule.warmup{skip}, and start with --new",
    )
