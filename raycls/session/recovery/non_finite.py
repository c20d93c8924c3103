"""What a run does with steps whose gradient is not finite, as `train.non_finite` says."""

from __future__ import annotations

from functools import partial
from typing import Any

from raycls.quantities import first_names
from raycls.run import checkpoint, strict_json
from raycls.run.folder import RunFolder
from raycls.session.recording.recorder import Recorder
from raycls.session.setup import together
from raycls.train.recovery.non_finite import NonFinite
from raycls.train.state import TrainState

__all__ = ["non_finite_of"]


def non_finite_of(recorder: Recorder) -> NonFinite:
    """What the loop asks."""
    train = recorder.run.train
    if train.non_finite == "error":
        return NonFinite()
    note = partial(_skipped, recorder)
    if train.non_finite == "skip":
        return NonFinite(note)
    return NonFinite(note, train.rewind.after, partial(_go_back, recorder), train.rewind.times)


def _skipped(recorder: Recorder, step: int, loss: float, norm: float) -> None:
    """Note on rank 0 that `step` (from 0) had no update, and for which samples: `non_finite.jsonl`, and a line."""
    ids = recorder.plan.order.batch(step)
    names = first_names([str(index) for index in ids[:5].tolist()], len(ids))
    _write(recorder, step, loss=repr(loss), grad_norm=repr(norm), ids=ids.tolist())
    recorder.tell(f"step {step + 1} is skipped: loss {loss:g}, norm {norm:g}; samples {names} ({RunFolder.NON_FINITE})")


def _go_back(recorder: Recorder, state: TrainState) -> None:
    """Give `state` what the checkpoint `state.good` has; a collective call after the step `state.step` (from 0)."""
    step, good = state.step, state.good
    recorder.settle()
    state.rewind(together(recorder.ranks, lambda: checkpoint.load(recorder.folder, good)).trees)
    _write(recorder, step, back_to=good, left_out=[good + 1, step + 1])
    text = (
        f"the run goes back to the checkpoint of step {good}, and leaves out what was trained since, "
        f"steps {good + 1} to {step + 1} ({RunFolder.NON_FINITE})"
    )
    recorder.note("rewind", step + 1, text, back_to=good)


def _write(recorder: Recorder, step: int, **facts: Any) -> None:
    if recorder.ranks.rank == 0:
        line = {"attempt": recorder.attempt, "step": step + 1, "epoch": recorder.plan.order.epoch(step), **facts}
        recorder.folder.store.append_line(RunFolder.NON_FINITE, strict_json.dumps(line))
