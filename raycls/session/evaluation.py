"""One process's part of an evaluation: every row of a split once, with the weights of a run."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.slices import Timeline
from raycls.data.stream import open_stream
from raycls.plugins import no_exit
from raycls.run import kept
from raycls.run.folder import RunFolder
from raycls.session.consistency import check_shared
from raycls.session.job import Job, World
from raycls.session.messages import Began
from raycls.session.setup import make_maker, surrounded, together
from raycls.session.stall import Stall
from raycls.session.trained.trained import build_network
from raycls.tasks.base import Task
from raycls.train.evaluate import evaluate as evaluate_model
from raycls.train.plan import Plan
from raycls.train.precision import autocast
from raycls.train.ranks import Ranks
from raycls.workdir import set_workdir

__all__ = ["evaluate"]


@no_exit()
def evaluate(job: Job, world: World) -> dict[str, Any]:
    """Evaluate weights of a run on `job.split`; returns the summary of its task."""
    run, plan = config.from_dict(job.config), Plan.from_dict(job.plan)
    set_workdir(job.workdir)
    ranks = Ranks(world.rank, world.size, world.device)
    rows = len(job.dataset.splits[job.split])
    batches = -(-rows // plan.evaluate_batch)
    with ExitStack() as stack:
        reporter = surrounded(run, plan, job, world, stack)
        if world.rank == 0:
            world.post(Began(world.size))
        stack.enter_context(Stall(ranks, RunFolder(job.folder), run.train.stall_timeout, world.stalled))
        timeline = Timeline(plan.order, world.size, 0, 0, 1, rows, plan.evaluate_batch, True)
        maker = make_maker(run, plan, job.dataset, world.size, job.split)
        stream = open_stream(run.data, job.executor, timeline, maker, world.rank, share=world.share)
        stack.callback(reporter.watch(stream, timeline).close)
        model, task = together(ranks, partial(_build_final, run, job, world))
        slices = stream.evaluation(0, batches, world.size)
        precision = autocast(plan.precision or "off", world.device)
        return evaluate_model(model, slices, task, ranks, batches=batches, seed=plan.seed, precision=precision)


def _build_final(run: Run, job: Job, world: World) -> tuple[torch.nn.Module, Task]:
    folder = RunFolder(job.folder)
    check_shared(folder, job.nonce)
    weights = job.weights or kept.choose(folder, None)
    return build_network(run, folder, job.dataset.classes, weights, world.device)
