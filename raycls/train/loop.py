"""The training loop, on one page. It takes its world as arguments and knows neither Ray nor the config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from raycls.data.order import Order, key
from raycls.data.slices import Slice, micro_rows
from raycls.data.stream import Stream
from raycls.errors import TrainError
from raycls.randomness import seed_all
from raycls.tasks.base import Task
from raycls.train.plan import Plan, due
from raycls.train.ranks import Interrupted, Ranks
from raycls.train.reasons import Reason
from raycls.train.recovery.non_finite import NonFinite
from raycls.train.reduction import Reduction
from raycls.train.state import TrainState

__all__ = ["micro_batch", "train"]


def train(
    state: TrainState,
    plan: Plan,
    task: Task,
    batches: Stream,
    ranks: Ranks,
    reduction: Reduction,
    *,
    precision: AbstractContextManager[object],
    lr: Callable[[int], float],
    ready: Callable[[int], None],
    clip: Callable[[], float],
    non_finite: NonFinite,
    there: Callable[[Slice], Order] | None = None,
    seen: Callable[[int, Slice, list[tuple[int, int, int]]], None],
    log: Callable[[TrainState, float, float], None],
    evaluate: Callable[[TrainState], bool],
    save: Callable[[TrainState], None],
) -> Reason:
    """Train from `state.step` to the end of `plan`; say why it ended: `DONE`, `EARLY`, or what the ranks agreed on.

    A forward pass runs inside `precision`; `lr` and `ready` (which sets training mode and what is frozen) get the step,
    from 0; `clip` returns the norm; `non_finite` says what follows where it is not finite. `there`: the order without
    the bad images of a batch. `evaluate`: is this the best state so far? Interrupted where time is short.
    """
    between = _Between(state, plan, ranks, log, evaluate, save)
    if state.unevaluated and (left := between.conclude(True)):
        return left
    while state.step < plan.total_steps and not state.finished:
        step, batch = state.step, batches.next("train", state.step)
        if (agreed := ranks.agree(batch.error)).stop:
            between.keep()
            return agreed.stop

        # One global batch: the gradient of its mean loss, whoever computes which part of it.
        rate = lr(step) * (1.0 if state.plateau is None else state.plateau.factor)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1.0)
        order = plan.order if there is None else there(batch)
        rows, parts = order.rows(step), micro_rows(order, step, ranks.rank, ranks.world)
        if not rows:  # all samples of this batch are left out: a step without an update
            seen(step, batch, parts)
            if left := between.stepped(0.0, batches.waited, agreed.save):
                return left
            continue
        ready(step)
        reduction.begin(step, order.holes)
        for micro, start, stop in reduction.passes(parts):
            task.start, sums = order.bounds(step, parts[0][0]).start + start, None
            with reduction.micro_batch(micro, stop - start):
                if start < stop:
                    part = micro_batch(task, batch, (micro, start, stop), plan.seed, ranks.device)
                    with precision:
                        sums = ordered(task.loss(reduction.model, part), task)
                    state.scaler.scale(minimised(sums, task) * (reduction.factor / rows)).backward()
            reduction.add(micro, sums)
        totals = named(reduction.finish().tolist(), task)
        seen(step, batch, parts)

        # One update, unless the gradient is not finite.
        state.scaler.unscale_(state.optimizer)
        norm = clip()
        lost, state.finite = False, math.isfinite(norm) and math.isfinite(totals["loss"])
        reduction.keep_buffers(state.finite)
        if state.finite:
            state.scaler.step(state.optimizer)
            state.meter.add(totals, rows)
            state.skipped_in_a_row = 0
            if state.ema is not None:
                state.ema.update_parameters(state.model)
        else:
            state.meter.add(totals, 0)
            lost = non_finite.skip(state, order, totals["loss"] / rows, norm)
        state.scaler.update()
        if lost:
            non_finite.go_back(state)

        if left := between.stepped(norm, batches.waited, agreed.save or lost):
            return left
    return state.finished or Reason.DONE


class _Between:
    """What happens between two steps: the evaluation and the checkpoint, where they are due."""

    def __init__(
        self,
        state: TrainState,
        plan: Plan,
        ranks: Ranks,
        log: Callable[[TrainState, float, float], None],
        evaluate: Callable[[TrainState], bool],
        save: Callable[[TrainState], None],
    ) -> None:
        self.state, self.plan, self.ranks = state, plan, ranks
        self.log, self.evaluate, self.save = log, evaluate, save
        self.saved = state.step if state.step and not state.unevaluated else -1

    def stepped(self, norm: float, waited: float, asked: bool) -> Reason:
        """Count a step, log it where that is due, and `conclude`."""
        state = self.state
        state.step += 1
        state.elapsed = self.ranks.elapsed
        if self.plan.logs_after(state.step):
            self.log(state, norm, waited)
        state.unevaluated = self.plan.evaluates_after(state.step)
        return self.conclude(asked)

    def conclude(self, asked: bool = False) -> Reason:
        """Evaluate and save, where the step wants it or somebody `asked`. Returns why the evaluation was left."""
        state, improved, left = self.state, False, Reason.NONE
        if state.unevaluated:
            try:
                improved, state.unevaluated = self.evaluate(state), False
            except Interrupted as interrupted:  # whoever goes on does it first
                left = interrupted.reason
        ended = state.step == self.plan.total_steps or bool(state.finished)
        good = due(state.step, self.plan.rewind_every) and state.finite
        if good:
            state.good = state.step
        if left or asked or improved or ended or good or due(state.step, self.plan.checkpoint_every):
            self.keep()
        return left

    def keep(self) -> None:
        """Save, unless this very state was saved."""
        if self.saved != self.state.step:
            self.state.elapsed = self.ranks.elapsed
            self.save(self.state)
            self.saved = self.state.step


def micro_batch(task: Task, batch: Slice, part: tuple[int, int, int], seed: int, device: torch.device) -> Any:
    """What the loss of a training is handed of `batch`: the `part` (micro-batch, start, stop) of its rows, made with
    generators that start where (seed, step, micro-batch) says; the forward pass goes on with them."""
    micro, start, stop = part
    seed_all(key(seed, batch.position.step, micro) >> 1, device)
    return task.batch(batch.part(start, stop), train=True)


def ordered(sums: Mapping[str, Tensor], task: Task) -> list[Tensor]:
    """The sums of a loss as the task declares them: the minimised ones first."""
    if sums.keys() != set(task.sums) or any(value.numel() != 1 for value in sums.values()):
        raise TrainError(
            "the loss of the task does not return the sums that the task declares",
            where="task.name",
            found=", ".join(f"{name} {list(value.shape)}" for name, value in sums.items()) or "none",
            valid=f"scalars: {', '.join(task.sums)}",
            fix="return these from its method loss, or correct its attributes minimised and measured",
        )
    return [sums[name].reshape(()) for name in task.sums]


def minimised(sums: Sequence[Tensor], task: Task) -> Tensor:
    """What the backward pass starts from."""
    return reduce(add, sums[: len(task.minimised)])


def named(totals: Sequence[float], task: Task) -> dict[str, float]:
    """The totals of a global batch by name: `loss` is that of all that is minimised, its parts follow."""
    parts = dict(zip(task.sums, totals, strict=True))
    return {"loss": sum(parts[name] for name in task.minimised), **parts}
