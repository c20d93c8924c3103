"""`plan.json` of a run folder: written by rank 0 when a training begins or memory runs out, read by everybody else."""

from __future__ import annotations

from dataclasses import replace

from raycls.errors import CheckpointError
from raycls.run.folder import RunFolder
from raycls.train.plan import Plan
from raycls.train.recovery.divided import divided_from

__all__ = ["incomplete", "read_plan", "required_plan", "write_division", "write_plan"]


def read_plan(folder: RunFolder) -> Plan | None:
    """The plan that the run in `folder` was started with; None where it was not."""
    written = folder.read_json(RunFolder.PLAN)
    return Plan.from_dict(written) if written else None


def required_plan(folder: RunFolder) -> Plan:
    """The plan of a run that has begun; CheckpointError where it is not there."""
    if (plan := read_plan(folder)) is None:
        raise incomplete(folder, RunFolder.PLAN)
    return plan


def incomplete(folder: RunFolder, missing: str) -> CheckpointError:
    """The run folder lacks the file `missing`, without which its weights mean nothing."""
    return CheckpointError(
        "the run folder is not complete",
        where=folder.store.describe(missing),
        found="no such file",
        fix="copy the whole run folder; a run that was interrupted writes it when it is resumed",
    )


def write_plan(folder: RunFolder, plan: Plan, first: Plan | None) -> None:
    """Write `plan`; where the run has `first` already, only its length and the samples it leaves out may change."""
    now = plan
    if first is not None:
        now = first if first.total_steps == plan.total_steps else plan
        now = replace(
            now,
            reduction=first.reduction,
            device=first.device,
            precision=first.precision,
            divided=first.divided,
            left_out=plan.left_out or first.left_out,
            left_out_labels=plan.left_out_labels or first.left_out_labels,
        )
    if now != first:
        folder.write_json(RunFolder.PLAN, now.to_dict())


def write_division(folder: RunFolder, step: int, parts: int) -> None:
    """Note that from `step` (from 0) on each micro-batch of the start is computed in `parts` micro-batches."""
    plan = required_plan(folder)
    folder.write_json(RunFolder.PLAN, replace(plan, divided=divided_from(plan.divided, step, parts)).to_dict())
