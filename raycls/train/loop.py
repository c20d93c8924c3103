"""The training loop, on one page. It takes its world as arguments and knows neither Ray nor the config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from raycls.data.order import Order, key
from raycls.data.slices import Slice, micro_rows
from raycls.data.stream import Stream
from raycls.errors import TrainError
from raycls.randomness import seed_all
from raycls.tasks.base import Task
from raycls.train.plan import Plan, due
from raycls.train.ranks import Interrupted, Ranks
from raycls.train.reasons import Reason
from raycls.train.reduction import Reduction
from raycls.train.state import TrainState

__all__ = ["train"]

_MOST_SKIPPED = 10
"""Steps in a row without a finite gradient after which a run is given up, whatever it was told."""


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
    clip_norm: float,
    skip_non_finite: bool,
    seen: Callable[[int, Slice, list[tuple[int, int, int]]], None],
    log: Callable[[TrainState, float, float], None],
    evaluate: Callable[[TrainState], bool],
    save: Callable[[TrainState], None],
) -> Reason:
    """Train from `state.step` to the end of `plan`; say why it ended: `DONE`, `EARLY`, or what the ranks agreed on.

    A forward pass runs inside `precision`; `lr(step)` counts from 0; `clip_norm` may be infinite. `evaluate` updates
    best, plateau and early stop, and says whether this is the best state so far; Interrupted where time is short.
    """
    order, parameters = plan.order, [p for p in state.model.parameters() if p.requires_grad]
    between = _Between(state, plan, ranks, log, evaluate, save)
    if state.unevaluated and (left := between.conclude(True)):
        return left
    while state.step < plan.total_steps and not state.finished:
        step = state.step
        batch = batches.next("train", step)
        agreed = ranks.agree(batch.error)
        if agreed.stop:
            between.keep()
            return agreed.stop

        # One global batch: the gradient of its mean loss, whoever computes which part of it.
        for group in state.optimizer.param_groups:
            group["lr"] = lr(step) * (1.0 if state.plateau is None else state.plateau.factor)
        rows, parts = order.rows(step), micro_rows(order, step, ranks.rank, ranks.world)
        if not rows:  # all samples of this batch are left out: a step without an update
            seen(step, batch, parts)
            if left := between.stepped(0.0, batches.waited, agreed.save):
                return left
            continue
        state.model.train()
        reduction.begin(step)
        for micro, start, stop in parts:
            sums = None
            with reduction.micro_batch(micro, stop - start):
                if start < stop:
                    seed_all(key(plan.seed, step, micro) >> 1, ranks.device)
                    part = task.batch(batch.part(start, stop), train=True)
                    with precision:
                        sums = ordered(task.loss(reduction.model, part), task)
                    state.scaler.scale(minimised(sums, task) * (reduction.factor / rows)).backward()
            reduction.add(micro, sums)
        totals = named(reduction.finish().tolist(), task)
        seen(step, batch, parts)

        # One update, unless the gradient is not finite.
        state.scaler.unscale_(state.optimizer)
        norm = gradient_norm(parameters, clip_norm)
        finite = math.isfinite(norm) and math.isfinite(totals["loss"])
        reduction.keep_buffers(finite)
        if finite:
            state.scaler.step(state.optimizer)
            state.meter.add(totals, rows)
            state.skipped_in_a_row = 0
            if state.ema is not None:
                state.ema.update_parameters(state.model)
        else:
            state.meter.add(totals, 0)
            state.skipped_in_a_row += not searching(state.scaler)
            refused = not (skip_non_finite or state.scaler.is_enabled())
            if refused or state.skipped_in_a_row >= _MOST_SKIPPED:
                raise not_finite(order, step, totals["loss"] / rows, norm)
        state.scaler.update()

        if left := between.stepped(norm, batches.waited, agreed.save):
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
        if left or asked or improved or ended or due(state.step, self.plan.checkpoint_every):
            self.keep()
        return left

    def keep(self) -> None:
        """Save, unless this very state was saved."""
        if self.saved != self.state.step:
            self.state.elapsed = self.ranks.elapsed
            self.save(self.state)
            self.saved = self.state.step


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


def gradient_norm(parameters: list[nn.Parameter], most: float) -> float:
    """The L2 norm of the whole gradient, which is scaled down to `most` where it is longer."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    value = float(norm)
    if most < value < math.inf:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm, foreach=True)
    return value


def searching(scaler: torch.amp.GradScaler) -> bool:
    """Whether loss scaling (fp16) still has room to fall: steps that overflow until then are its way of working."""
    return scaler.is_enabled() and scaler.get_scale() > 1


def not_finite(order: Order, step: int, loss: float, norm: float) -> TrainError:
    return TrainError(
        f"step {step} has a gradient that is not finite (loss {loss:g}, norm {norm:g})",
        found=f"epoch {order.epoch(step)}, samples {order.batch(step)[:8].tolist()} ...",
        fix="lower optim.lr, set optim.clip_norm or schedule.warmup, or train.non_finite=skip, and start with --new",
    )
