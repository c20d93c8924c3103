"""What a run does where memory runs out: what it refuses, what it writes down, and what it says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import nn

from raycls.config.sections.run import Run
from raycls.config.write import override
from raycls.data.order import Order
from raycls.errors import ConfigError, TrainError
from raycls.models import zoo
from raycls.session.data.unfit import first_sample
from raycls.session.plan_file import write_division
from raycls.session.recording.recorder import Recorder
from raycls.session.recovery.alone import Alone, refuse_alone
from raycls.session.setup import together
from raycls.tasks.base import Task
from raycls.train.forward.compiled import as_it_is
from raycls.train.plan import Plan
from raycls.train.recovery.memory import lacks_memory

__all__ = ["Lack", "check_divisible"]

_OPTION = "train.on_out_of_memory"
_LESS = "a smaller network or data.image_size"


def check_divisible(run: Run, task: Task, plan: Plan) -> Plan:
    """`plan` with the exact reduction where `train.on_out_of_memory: split` needs it; ConfigError where it cannot be.

    It needs it on several workers: DistributedDataParallel adds up in the backward pass, where nobody can wait for a
    worker that begins anew.
    """
    if run.train.on_out_of_memory == "error":
        return plan
    if task.least > 1:
        raise ConfigError(
            f"the task {run.task.name} compares the images of a micro-batch with each other: in smaller ones it is "
            "another loss",
            where=_OPTION,
            found="split",
            valid="error",
            fix=f"{override(_OPTION, 'error')} and {_LESS}",
        )
    if run.scale.max_workers < 2:
        return plan
    if run.train.batch_norm == "sync":
        raise ConfigError(
            "with train.batch_norm: sync the workers wait for each other in the network: no step can be done again",
            where=_OPTION,
            found="split",
            valid="error",
            fix=override(_OPTION, "error"),
        )
    if "fast" in (run.train.reduction, plan.reduction):
        started = run.train.reduction != "fast" or plan.reduction == "fast"
        raise ConfigError(
            "the fast reduction adds up in the backward pass: no step can be done again on several workers",
            where=f"{_OPTION}, train.reduction",
            found="split, fast" + (" (as the run was started)" if started else ""),
            valid="split with the exact reduction, or error",
            fix=override(_OPTION, "error") + ("" if started else f", or {override('train.reduction', 'exact')}"),
        )
    return replace(plan, reduction="exact")


class Lack:
    """`raycls.train.recovery.memory.Memory` of one rank of a run."""

    def __init__(self, recorder: Recorder, model: nn.Module, task: Task, alone: Alone) -> None:
        self.splits = recorder.run.train.on_out_of_memory == "split"
        self._recorder, self._model, self._task, self._alone = recorder, model, task, alone
        self._run, self._plan, self._ranks = recorder.run, recorder.plan, recorder.ranks

    def divide(self, step: int, order: Order) -> None:
        """Note the division in `plan.json`, whichever checkpoint the run resumes from."""
        if order.fewest_rows(step, self._plan.total_steps) < 2 * order.micro_batches:
            together(self._ranks, partial(self._check_alone, step, order))
        if self._ranks.rank == 0:
            write_division(self._recorder.folder, step, order.together)

    def leaves(self, step: int, order: Order) -> None:
        """DataError where a micro-batch is left with one image, and its statistics need two."""
        together(self._ranks, partial(self._check_left, step, order))

    def divided(self, step: int, order: Order) -> None:
        """A line on the screen and in the history."""
        text = f"step {step + 1} ran out of memory: from here on there are {order.micro_batches} micro-batches"
        self._recorder.note("divided", step + 1, text, micro_batches=order.micro_batches)

    def fix(self) -> str:
        train, split = self._run.train, override(_OPTION, "split")
        off = (train.activation_checkpointing, train.compile) == ("off", "off")
        less = override("train.activation_checkpointing", "on") if off else ""
        again = (
            f"rerun with {less}: the run resumes, to the same bits, with less to keep in memory; or " if less else ""
        )
        if self.splits or self._task.least > 1 or train.batch_norm == "sync":
            return f"{again}start anew with --new and {_LESS}"
        if self._plan.reduction == "fast" and self._run.scale.max_workers > 1:
            exact = override("train.reduction", "exact")
            return f"{again}start anew with --new and a larger train.micro_batches, or with {exact} {split}"
        return f"{again}rerun with {split}: the step is done again with twice as many micro-batches"

    def _check_left(self, step: int, order: Order) -> None:
        try:
            refuse_alone(order, step, self._alone)
        except (RuntimeError, MemoryError) as error:  # the failed try is not forgotten yet
            if not lacks_memory(error):
                raise

    def _check_alone(self, step: int, order: Order) -> None:
        example = self._task.example(first_sample(self._run, self._recorder.dataset, self._plan))
        try:
            with as_it_is(self._run.train):
                zoo.forward_alone(self._model, example, lambda: None)
        except ValueError as error:  # batch normalisation over one value
            rows = order.fewest_rows(step, self._plan.total_steps)
            raise TrainError(
                f"step {step + 1} ran out of memory, and this model cannot be trained on micro-batches of one image",
                where="data.batch_size, train.micro_batches",
                found=f"{order.micro_batches} micro-batches would be needed, of which a batch of {rows} has some with "
                f"one image; {error}",
                fix=self.fix(),
            ) from error
        except (RuntimeError, MemoryError) as error:  # the failed try is not forgotten yet
            if not lacks_memory(error):
                raise
