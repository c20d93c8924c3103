"""What the workers of a run have in common, and its starts one after another: refused or told where it differs."""

from __future__ import annotations

import hashlib
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from raycls.config.sections.run import Run
from raycls.config.write import override
from raycls.errors import ConfigError, LaunchError
from raycls.run.folder import Attempt, RunFolder
from raycls.tasks.base import Task
from raycls.train.plan import Plan
from raycls.train.precision import cpu_kind
from raycls.train.ranks import Ranks

__all__ = ["check_outside", "check_shared", "compare_cpus", "fitted", "nonce_of", "outside_of", "warn_of_changes"]


def nonce_of(folder: RunFolder) -> str:
    """What tells this start of a run from any other: the sha256 of its `env.json`, in hexadecimal."""
    return hashlib.sha256(folder.store.read_bytes(RunFolder.ENV)).hexdigest()


def check_shared(folder: RunFolder, nonce: str) -> None:
    """Refuse a worker that does not see the run folder of the driver: what it wrote would be lost.

    `nonce` is `nonce_of` as the driver sees it.
    """
    seen = folder.store.find_bytes(RunFolder.ENV)
    if seen is not None and hashlib.sha256(seen).hexdigest() == nonce:
        return
    raise LaunchError(
        "a worker does not see the run folder: run.storage is not shared between the machines",
        where=f"{folder.store.describe()} on {socket.gethostname()}",
        found="nothing there" if seen is None else "another run",
        fix="set run.storage to a folder or URI that every node reaches",
    )


def check_outside(folder: RunFolder, task: Task) -> None:
    """ConfigError where the task reads something else besides the data, such as a teacher, than the run began with."""
    now = task.outside()
    before = (folder.read_json(RunFolder.ENV) or {}).get("outside") or {} if now else {}
    for name, facts in now.items():
        then = before.get(name, facts)
        if then.get("sha256") != facts.get("sha256"):
            raise ConfigError(
                f"this run was started with another {name}",
                where=f"task.args.{name}",
                found=f"{_shown(facts)}; at the start {_shown(then)}",
                fix=f"put the first {name} back, or start anew with --new (the old run is kept beside it)",
            )


def fitted(run: Run, task: Task, plan: Plan) -> Plan:
    """`plan` with the exact reduction where the task needs it; ConfigError where the config asks for what it cannot."""
    if plan.batch_size < task.least * plan.micro_batches:
        raise ConfigError(
            f"the task {run.task.name} compares the images of a micro-batch with each other",
            where="data.batch_size, train.micro_batches",
            found=f"{plan.batch_size} images in {plan.micro_batches} micro-batches",
            valid=f"{task.least} images or more in each",
            fix=override("data.batch_size", 32 * plan.micro_batches),
        )
    if run.train.batch_norm == "sync":
        _check_sync(run, plan)
    if not task.exact:
        return plan
    if run.train.reduction == "fast":
        raise ConfigError(
            f"the task {run.task.name} keeps buffers that all workers add to: the fast reduction would lose them",
            where="train.reduction",
            found="fast",
            valid="exact, or auto",
            fix=override("train.reduction", "exact"),
        )
    return replace(plan, reduction="exact")


def _check_sync(run: Run, plan: Plan) -> None:
    """ConfigError where the workers and micro-batches do not fit `train.batch_norm: sync`."""
    workers, rows = max(1, run.scale.max_workers), plan.order.fewest_rows(0, plan.total_steps)
    if workers != plan.micro_batches:
        raise ConfigError(
            "this run takes its batch-norm statistics over all micro-batches at once, each on a worker of its own",
            where="scale.workers, train.batch_norm",
            found=str(run.scale.max_workers),
            valid=f"{plan.micro_batches}, fixed when the run was started",
            fix=override("scale.workers", plan.micro_batches)
            + "; workers may share a machine. Or start anew with --new",
        )
    if plan.micro_batches > 1 and run.data.on_bad_image == "skip":
        raise ConfigError(
            "with train.batch_norm: sync every worker needs an image of every batch, and bad images may leave it none",
            where="data.on_bad_image, train.batch_norm",
            found="skip, sync",
            fix=f"{override('data.on_bad_image', 'error')}; or start anew with train.batch_norm=micro_batch --new",
        )
    if rows < plan.micro_batches:
        raise ConfigError(
            "with train.batch_norm: sync every worker needs an image of every batch",
            where="data.batch_size, train.micro_batches",
            found=f"{plan.samples} samples in batches of {plan.batch_size}: the smallest batch has {rows}, "
            f"in {plan.micro_batches} micro-batches",
            fix="choose a batch size that leaves more images to the last batch",
        )


def outside_of(task: Task, resumed: RunFolder | None, say: Callable[[str], None]) -> Mapping[str, Any]:
    """`Task.outside`: as it was where a run is `resumed`, told where one starts."""
    if resumed is not None:
        check_outside(resumed, task)
        return {}
    found = task.outside()
    for note in task.notes():
        say(note)
    return found


def _shown(facts: Mapping[str, str]) -> str:
    return f"sha256 {str(facts.get('sha256'))[:16]}..."


def warn_of_changes(
    attempt: Attempt, here: Mapping[str, str], *, reduction: str, workers: int, warn: Callable[[str], None]
) -> None:
    """Say what differs from the start before this one and may change bits."""
    for name, value in here.items():
        before = attempt.rest.get(name, value)
        if before != value:
            warn(f"this run used {name} {before} until now and resumes with {value}: its bits may differ")
    if reduction == "fast" and max(1, attempt.workers) != workers:
        warn(f"the fast reduction adds differently on {workers} workers than on {attempt.workers} before")


def compare_cpus(ranks: Ranks, warn: Callable[[str], None]) -> None:
    """Say on rank 0 that the CPUs of the workers are of different kinds. A collective call."""
    if not ranks.same(zlib.crc32(cpu_kind().encode())) and ranks.rank == 0:
        warn("the workers' CPUs are of different kinds: other workers may give other bits")
