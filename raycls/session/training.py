"""One process's part of a training: from a plain description of the job to the loop, with or without Ray."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.slices import Timeline
from raycls.data.stream import Stream, open_stream
from raycls.errors import RayclsError, from_json, to_json
from raycls.models import zoo
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.run import checkpoint
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import HANDOVER_SECONDS, Lock
from raycls.session.consistency import check_shared, compare_cpus, warn_of_changes
from raycls.session.data.unfit import first_sample
from raycls.session.job import Job, World
from raycls.session.length.longer import write_duration
from raycls.session.messages import Advice, Failed, Started
from raycls.session.plan_file import read_plan, write_plan
from raycls.session.recorder import Judged, Recorder
from raycls.session.reporter import Reporter
from raycls.session.setup import make_maker, make_task, surrounded, tell, together
from raycls.session.stall import Stall
from raycls.tasks.base import Task
from raycls.tasks.metrics import mode_of
from raycls.train.evaluate import evaluate as evaluate_model
from raycls.train.loop import train as train_loop
from raycls.train.optim import EarlyStop
from raycls.train.optimizers import build_optimizer
from raycls.train.plan import Plan
from raycls.train.precision import autocast, cpu_kind, emulated, resolve_precision
from raycls.train.ranks import Ranks
from raycls.train.reduction import Reduction, make_reduction
from raycls.train.schedules import Schedule, build_schedule
from raycls.train.state import TrainState, moving_average
from raycls.workdir import set_workdir

__all__ = ["train"]


@no_exit()
def train(job: Job, world: World) -> dict[str, Any]:
    """Train until the plan, the budget, a signal or an error ends it. Returns what `Recorder.result` says."""
    run, plan = config.from_dict(job.config), Plan.from_dict(job.plan)
    folder = RunFolder(job.folder)
    set_workdir(job.workdir)
    ranks = Ranks(world.rank, world.size, world.device)
    with ExitStack() as stack:
        reporter = surrounded(run, plan, job, world, stack)
        lock = _lock(folder, job.start, world, stack)
        stack.enter_context(Stall(ranks, folder, run.train.stall_timeout, world.stalled))
        start = _agree_on_start(run, job, plan, folder, world)
        stream = _open(run, job, plan, start, world, reporter)
        stack.callback(stream.close)
        state, task, schedule = together(ranks, partial(_build, run, job, plan, folder, start, world))
        about = run, plan, folder, ranks, start.attempt, world.post, job.dataset, task.metrics
        recorder = stack.enter_context(Recorder(*about, gauge=world.gauge, curves=job.curves))
        precision = autocast(start.precision, world.device)
        together(ranks, partial(recorder.track, job.search, job.dashboard))
        judged = Judged(world.decide if world.rank == 0 else None, world.stop_requested, state, recorder)
        ranks = replace(
            ranks,
            stop_requested=judged.stop_requested,
            preempted=world.preempted,
            pending_error=lambda: recorder.pending_error() or lock.error,
            budget_seconds=plan.budget_seconds,
            save_seconds=plan.checkpoint_seconds,
            elapsed_before=state.elapsed,
        )
        if plan.reduction == "exact" and job.device == "cpu":
            compare_cpus(ranks, lambda text: tell(world, f"warning: {text}"))
        reduction = _reduction(run, job, plan, state, task, ranks)
        evaluate = partial(_evaluate_now, run, plan, stream, task, ranks, recorder, precision)
        reason = train_loop(
            state,
            plan,
            task,
            stream,
            ranks,
            reduction,
            precision=precision,
            lr=lambda step: run.optim.lr * schedule.factor(step),
            clip_norm=float("inf") if isinstance(run.optim.clip_norm, str) else run.optim.clip_norm,
            skip_non_finite=run.train.non_finite == "skip",
            seen=recorder.seen,
            log=recorder.log,
            evaluate=evaluate,
            save=recorder.save,
        )
        result = recorder.finish(state, reason, ranks.elapsed)
        judged.verdict()
        return result


def _reduction(run: Run, job: Job, plan: Plan, state: TrainState, task: Task, ranks: Ranks) -> Reduction:
    fast = plan.reduction == "fast"  # the other one never calls the model by itself
    example = together(ranks, lambda: task.example(first_sample(run, job.dataset, plan))) if fast else ()
    return make_reduction(
        plan.reduction,
        state.model,
        plan.order,
        rank=ranks.rank,
        world=ranks.world,
        device=ranks.device,
        sums=len(task.sums),
        example=example,
    )


def _lock(folder: RunFolder, start: str, world: World, stack: ExitStack) -> Lock:
    """The lock of the run folder, held by rank 0 until `stack` is left; the display hears of a storage that is away."""
    say = partial(tell, world)
    folder.store.tell(say)
    lock = Lock(folder, "train", timeout=HANDOVER_SECONDS, say=say, family=start)
    if world.rank == 0:
        stack.enter_context(lock)
    return lock


def _agree_on_start(run: Run, job: Job, plan: Plan, folder: RunFolder, world: World) -> Started:
    """Rank 0 looks for the newest good checkpoint and opens an attempt; every rank hears of it."""
    begun: Any = None
    if world.rank == 0:
        try:
            begun = _begin(run, job, plan, folder, world)
        except RayclsError as error:
            begun = Failed(to_json(error))
    begun = world.share(begun)
    if isinstance(begun, Failed):
        raise from_json(begun.error)
    return begun


def _begin(run: Run, job: Job, plan: Plan, folder: RunFolder, world: World) -> Started:
    def warn(text: str) -> None:
        tell(world, f"warning: {text}")

    check_shared(folder, job.nonce)
    progress("looking for the latest checkpoint")
    state = checkpoint.newest(folder, on_bad=warn)
    step = state.step if state else 0
    first = read_plan(folder)
    precision = (first.precision if first else "") or resolve_precision(run.train.amp, world.device)
    if first is not None:
        write_duration(folder, run)
    write_plan(folder, replace(plan, device=job.device, precision=precision), first)
    here = {"device": job.device, "cpu": cpu_kind()}
    if job.device == "cuda":
        here["gpu"] = torch.cuda.get_device_name(world.device)
    for attempt in folder.attempts()[-1:]:
        warn_of_changes(attempt, here, reduction=plan.reduction, workers=world.size, warn=warn)
    if slow := emulated(precision, world.device):
        fix = "train.amp=off" + (" with --new" if first else "")
        world.post(Advice(f"warning: {slow}; fix: {fix}", what=slow, fix=fix))
    left_out = {"left_out": list(plan.left_out)} if plan.left_out else {}
    attempt = folder.begin_attempt(step, world.size, run.scale.threads, executor=job.executor, **here, **left_out)
    unevaluated = state is not None and bool(state.trees["train"].get("unevaluated"))
    begun = Started(world.size, step, unevaluated, attempt, precision)
    world.post(begun)
    return begun


def _build(
    run: Run, job: Job, plan: Plan, folder: RunFolder, start: Started, world: World
) -> tuple[TrainState, Task, Schedule]:
    """Model, optimizer and what goes with them, at the step of the checkpoint."""
    check_shared(folder, job.nonce)
    resumed = start.step > 0
    progress("building the model")
    model = zoo.build(run.model, plan.classes, run.run.seed, load=not resumed, classes=job.dataset.classes)
    task = make_task(run, job.dataset.classes, world.device)
    model.to(device=world.device, memory_format=task.layout)  # pyright: ignore[reportCallIssue]
    schedule = build_schedule(run.schedule, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    scaler = torch.amp.GradScaler(world.device.type, enabled=start.precision == "fp16")  # type: ignore[attr-defined]
    state = TrainState(
        model=model,
        optimizer=build_optimizer(run.optim, model),
        ema=moving_average(model, run.optim.ema, run.optim.ema_warmup),
        scaler=scaler,
        plateau=schedule.plateau,
        early_stop=EarlyStop.of(run.train.early_stop, mode_of(task, run.evaluate.metric)),
    )
    if resumed:
        options = [{name: group[name] for name in group if name != "params"} for group in state.optimizer.param_groups]
        progress("loading the checkpoint")
        state.load(checkpoint.load(folder, start.step).trees)
        # The config's, not the checkpoint's: they differ where a trial goes on from another one's weights.
        for group, own in zip(state.optimizer.param_groups, options, strict=True):
            group.update(own)
    return state, task, schedule


def _open(run: Run, job: Job, plan: Plan, start: Started, world: World, reporter: Reporter) -> Stream:
    timeline = Timeline(
        plan.order,
        world.size,
        start.step,
        plan.total_steps,
        plan.evaluate_every,
        plan.evaluate_rows,
        plan.evaluate_batch,
        start.unevaluated,
    )
    maker = make_maker(run, plan, job.dataset, world.size, run.evaluate.split)
    stream = open_stream(run.data, job.executor, timeline, maker, world.rank, share=world.share)
    return reporter.watch(stream, timeline)


def _evaluate_now(
    run: Run,
    plan: Plan,
    stream: Stream,
    task: Task,
    ranks: Ranks,
    recorder: Recorder,
    precision: AbstractContextManager[object],
    state: TrainState,
) -> bool:
    began, waited = time.monotonic(), stream.waited
    batches = -(-plan.evaluate_rows // plan.evaluate_batch)
    slices = stream.evaluation(state.step, batches, ranks.world)
    summary = evaluate_model(
        state.evaluated_model, slices, task, ranks, batches=batches, seed=plan.seed, precision=precision
    )
    seconds = time.monotonic() - began
    facts = {"epoch": plan.epochs(state.step), "split": run.evaluate.split}
    metric = run.evaluate.metric
    improved = state.judge(facts, task.scalars(summary), metric, mode_of(task, metric))
    state.elapsed = ranks.elapsed  # of all starts: what a search measures a trial's time by
    recorder.evaluated(state, improved, seconds=seconds, waited=stream.waited - waited)
    return improved
