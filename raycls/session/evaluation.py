"""One process's part of an evaluation: every row of a split once, with the weights of a run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.making.bad import good_rows
from raycls.data.slices import Timeline
from raycls.data.stream import Stream, open_stream
from raycls.plugins import no_exit
from raycls.run import kept
from raycls.run.folder import RunFolder
from raycls.session.consistency import check_shared
from raycls.session.hanging.stall import Stall
from raycls.session.job import Job, World
from raycls.session.messages import Began, Event
from raycls.session.recovery.bad_images import Met, too_many
from raycls.session.scoring.options import FIT, Scoring
from raycls.session.scoring.scored import score
from raycls.session.scoring.views import Averaged, Once
from raycls.session.setup import make_maker, surrounded, together
from raycls.session.trained.precision import answering, in_float32
from raycls.session.trained.trained import build_network
from raycls.tasks.base import Task
from raycls.tasks.build import reading_of
from raycls.tasks.crf.dense import Crf
from raycls.tasks.segmentation.task import Segmentation
from raycls.train.evaluation.evaluate import evaluate as evaluate_model
from raycls.train.evaluation.rows import Rows
from raycls.train.plan import Plan
from raycls.train.precision import autocast
from raycls.train.ranks import Ranks
from raycls.workdir import set_workdir

__all__ = ["evaluate"]


@no_exit()
def evaluate(job: Job, world: World) -> dict[str, Any]:
    """Evaluate weights of a run on `job.split`; returns the summary of its task.

    The first rank adds what `job.scoring` asks for, and writes the predictions.
    """
    run, plan = config.from_dict(job.config), Plan.from_dict(job.plan)
    set_workdir(job.workdir)
    ranks = Ranks(world.rank, world.size, world.device)
    with ExitStack() as stack:
        reporter = surrounded(run, plan, job, world, stack)
        if world.rank == 0:
            world.post(Began(world.size))
        stack.enter_context(Stall(ranks, RunFolder(job.folder), run.train.stall_timeout, world.stalled))
        precision = _precision(run, plan, ranks, world)
        model, task = None, None
        found: dict[str, Any] = {}
        for split in ([FIT] if FIT in job.dataset.splits else []) + [job.split]:
            rows = len(job.dataset.splits[split])
            timeline = Timeline(plan.order, world.size, 0, 0, 1, rows, plan.evaluate_batch, True)
            maker = make_maker(run, plan, job.dataset, world.size, split)
            about = run.data, job.executor, timeline, maker, world.rank
            stream = open_stream(*about, share=world.share, ahead=job.ahead)
            stack.callback(reporter.watch(stream, timeline).close)
            if model is None or task is None:  # the stream decodes while they are made
                model, task = together(ranks, partial(_build_final, run, job, world))
                if job.scoring is not None and job.scoring.joined and isinstance(task, Segmentation):
                    task.crf = Crf(**dict(job.scoring.joined)["crf"])
            met = Met()
            found[split] = _evaluated(model, task, stream, ranks, plan, rows, job.scoring, precision, met)
            if run.data.on_bad_image == "skip":
                job = _without_bad(run, job, split, found, met, ranks)
        summary, _ = found[job.split]
        if job.scoring is None or ranks.rank:
            return summary
        return {**summary, **score(job, found, reading_of(run.task))}


def _evaluated(
    model: torch.nn.Module,
    task: Task,
    stream: Stream,
    ranks: Ranks,
    plan: Plan,
    rows: int,
    scoring: Scoring | None,
    precision: torch.autocast,
    met: Met,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The summary of a split, and on rank 0 what the task says of its rows, where that is asked for."""
    keep = None if scoring is None else Rows(rows, plan.evaluate_batch)
    if scoring is not None:
        model = Once(model if scoring.tta == "off" else Averaged(model, scoring.tta, task.reading))
    batches = -(-rows // plan.evaluate_batch)
    slices = met.watch(stream.evaluation(0, batches, ranks.world))
    summary = evaluate_model(
        model, slices, task, ranks, batches=batches, seed=plan.seed, precision=precision, keep=keep
    )
    return summary, {} if keep is None else keep.gather(ranks)


def _without_bad(run: Run, job: Job, split: str, found: dict[str, Any], met: Met, ranks: Ranks) -> Job:
    """Take the bad images out of what was `found` of `split`, tell of them in its summary, and take them out of the
    split of `job`. DataError where they are too many. A collective call."""
    bad, whole = met.gathered(ranks), job.dataset.splits[split]
    paths = [each.path for _, each in bad]
    if error := too_many(run, split, paths, len(whole), f"the split {split}"):
        raise error
    if not bad:
        return job
    batch = Plan.from_dict(job.plan).evaluate_batch
    rows = [index * batch + each.place for index, each in bad]
    summary, arrays = found[split]
    files = [{"path": each.path, "reason": each.reason, "bytes": each.bytes} for _, each in bad]
    told = {"bad_images": {"count": len(bad), "first": paths[:5], "files": files}}
    found[split] = {**summary, **told}, {name: np.delete(array, rows, 0) for name, array in arrays.items()}
    splits = {**job.dataset.splits, split: good_rows(whole, rows)}
    return replace(job, dataset=replace(job.dataset, splits=splits))


def _precision(run: Run, plan: Plan, ranks: Ranks, world: World) -> torch.autocast:
    """That of the first rank's device, for all of them. A collective call."""
    own = answering(plan.precision, ranks.device, trained_on=plan.device, chosen=run.train.amp)
    precision: str = ranks.first(own)
    if ranks.rank == 0 and plan.precision and precision != plan.precision:
        world.post(Event(in_float32(plan.precision)))
    return autocast(precision, ranks.device)


def _build_final(run: Run, job: Job, world: World) -> tuple[torch.nn.Module, Task]:
    folder = RunFolder(job.folder)
    check_shared(folder, job.nonce)
    weights = job.weights or kept.choose(folder, None)
    return build_network(run, folder, job.dataset.classes, weights, world.device)
