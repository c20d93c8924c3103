"""`plan.json` of a run folder: written by rank 0 when a training begins, read here by everybody else."""

from __future__ import annotations

from dataclasses import replace

from raycls.run.folder import RunFolder
from raycls.train.plan import Plan

__all__ = ["read_plan", "write_plan"]


def read_plan(folder: RunFolder) -> Plan | None:
    """The plan that the run in `folder` was started with; None where it was not."""
    written = folder.read_json(RunFolder.PLAN)
    return Plan.from_dict(written) if written else None


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
            left_out=plan.left_out or first.left_out,
        )
    if now != first:
        folder.write_json(RunFolder.PLAN, now.to_dict())
