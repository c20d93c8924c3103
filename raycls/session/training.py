"""One process's part of a training: from a plain description of the job to the loop, with or without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.slices import Timeline
from raycls.data.stream import Stream, open_stream
from raycls.errors import RayclsError, from_json, to_json
from raycls.models import zoo
from raycls.models.finetune import Stages, finetuned
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.run import checkpoint
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import HANDOVER_SECONDS, Lock
from raycls.session.consistency import check_outside, check_shared, compare_cpus, warn_of_changes
from raycls.session.data.labelled import with_labels
from raycls.session.data.unfit import first_sample
from raycls.session.hanging.stall import Stall
from raycls.session.job import Job, World
from raycls.session.length.longer import write_duration
from raycls.session.messages import Advice, Failed, Started
from raycls.session.plan_file import read_plan, write_plan
from raycls.session.recording.recorder import Judged, Recorder
from raycls.session.recording.reporter import Reporter
from raycls.session.recovery.alone import not_alone
from raycls.session.recovery.bad_images import BadImages, skipping
from raycls.session.recovery.memory import Lack
from raycls.session.recovery.non_finite import non_finite_of
from raycls.session.setup import in_memory, make_maker, make_task, surrounded, tell, together
from raycls.tasks.base import Task
from raycls.tasks.metrics import mode_of
from raycls.train.evaluation.evaluate import evaluate as evaluate_model
from raycls.train.forward.around import Around, around
from raycls.train.forward.compiled import as_it_is
from raycls.train.loop import train as train_loop
from raycls.train.optim import EarlyStop
from raycls.train.optimizers.build import build_optimizer
from raycls.train.optimizers.clipping import build_clip
from raycls.train.optimizers.sharpness import SharpnessAware
from raycls.train.plan import Plan
from raycls.train.precision import autocast, cpu_kind, emulated, resolve_precision
from raycls.train.ranks import Ranks
from raycls.train.recovery.memory import Dividing
from raycls.train.reduction import Reduction, make_reduction
from raycls.train.schedules import Schedule, build_schedule
from raycls.train.state import TrainState, moving_average
from raycls.workdir import set_workdir

__all__ = ["built", "reducing", "surroundings", "train"]

_Example = Callable[[], tuple[torch.Tensor, ...]]
"""What the network is called with for one sample: a collective call, for whoever calls the model by itself."""


@no_exit()
def train(job: Job, world: World) -> dict[str, Any]:
    """Train until the plan, the budget, a signal or an error ends it. Returns what `Recorder.result` says."""
    run = config.from_dict(job.config)
    plan = with_labels(run, Plan.from_dict(job.plan), job.dataset.splits["train"])
    optim = run.optim.scaled(run.data.batch_size)
    folder = RunFolder(job.folder)
    set_workdir(job.workdir)
    ranks = Ranks(world.rank, world.size, world.device)
    with ExitStack() as stack:
        reporter = surrounded(run, plan, job, world, stack)
        lock = _lock(folder, job.start, world, stack)
        stack.enter_context(Stall(ranks, folder, run.train.stall_timeout, world.stalled))
        start = _agree_on_start(run, job, plan, folder, world)
        plan = replace(plan, divided=start.divided)  # those of starts since the job was made, too
        stream = _open(run, job, plan, start, world, reporter)
        stack.callback(stream.close)
        state, task, schedule, ready = together(ranks, partial(built, run, job, plan, folder, start, world))
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
        example = cache(partial(together, ranks, lambda: task.example(first_sample(run, job.dataset, plan))))
        forward = stack.enter_context(surroundings(run, plan, state, ready, ranks, world, example))
        alone = cache(partial(not_alone, run, job.dataset, plan, task, state.model, ready))
        reduction = reducing(run, plan, state, task, ranks, Lack(recorder, state.model, task, alone), example)
        bad = skipping(run, job.dataset, plan, recorder.folder, ranks, recorder.tell, alone)
        evaluate = partial(_evaluate_now, run, plan, stream, task, ranks, recorder, precision, bad)
        reason = train_loop(
            state,
            plan,
            task,
            stream,
            ranks,
            reduction,
            precision=precision,
            lr=lambda step: optim.lr * schedule.factor(step),
            ready=ready,
            clip=build_clip(run.optim, state.model),
            non_finite=non_finite_of(recorder),
            there=None if bad is None else bad.there,
            seen=recorder.seen,
            log=lambda state, norm, waited: recorder.log(state, norm, waited, forward.compiled()),
            evaluate=evaluate,
            save=recorder.save,
        )
        result = recorder.finish(state, reason, ranks.elapsed)
        judged.verdict()
        return result


def surroundings(
    run: Run, plan: Plan, state: TrainState, ready: Stages, ranks: Ranks, world: World, example: _Example
) -> AbstractContextManager[Around]:
    """What the network computes in, as `train` says."""
    return around(
        run.train,
        state.model,
        device=ranks.device,
        world=ranks.world,
        micro_batches=plan.micro_batches,
        threads=run.scale.threads,
        ready=partial(ready, plan.total_steps - 1),  # the last stage trains the most
        example=example,
        together=partial(together, ranks),
        say=partial(tell, world) if ranks.rank == 0 else lambda text: None,
    )


def reducing(
    run: Run, plan: Plan, state: TrainState, task: Task, ranks: Ranks, memory: Lack | None, example: _Example
) -> Reduction:
    """How gradients are added up; `memory`: what happens where it runs out, None where that is left to the caller."""
    made = make_reduction(
        plan.reduction,
        state.model,
        plan.order,
        rank=ranks.rank,
        world=ranks.world,
        device=ranks.device,
        sums=len(task.sums),
        example=example() if plan.reduction == "fast" else (),  # the other one never calls the model by itself
    )
    divided = made if memory is None else Dividing(made, plan.divided, ranks, memory)
    return divided if isinstance(run.optim.sam, str) else SharpnessAware(divided, state.model, run.optim.sam)


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
    begun = Started(world.size, step, unevaluated, attempt, precision, first.divided if first else ())
    world.post(begun)
    return begun


def built(
    run: Run, job: Job, plan: Plan, folder: RunFolder, start: Started, world: World
) -> tuple[TrainState, Task, Schedule, Stages]:
    """Model, optimizer and what goes with them, at the step of the checkpoint."""
    check_shared(folder, job.nonce)
    resumed = start.step > 0
    progress("building the model")
    model = zoo.build(run.model, plan.classes, run.run.seed, load=not resumed, classes=job.dataset.classes)
    task = make_task(run, job.dataset.classes, world.device, plan)
    check_outside(folder, task)
    model = task.network(model)
    model.to(device=world.device, memory_format=task.layout)  # pyright: ignore[reportCallIssue]
    schedule = build_schedule(run.schedule, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    stages = finetuned(run.finetune, model, plan.classes, plan.steps_per_epoch, plan.total_steps)
    scaler = torch.amp.GradScaler(world.device.type, enabled=start.precision == "fp16")  # type: ignore[attr-defined]
    state = TrainState(
        model=model,
        optimizer=build_optimizer(run.optim.scaled(run.data.batch_size), model, stages.rates),
        ema=moving_average(model, run.optim.ema, run.optim.ema_warmup),
        scaler=scaler,
        plateau=schedule.plateau,
        early_stop=EarlyStop.of(run.train.early_stop, mode_of(task, run.evaluate.metric)),
    )
    if resumed:
        progress("loading the checkpoint")
        state.load_into(checkpoint.load(folder, start.step).trees)
        if state.good and state.good not in folder.steps():  # of the trial whose weights this one goes on from
            state.good = 0
    return state, task, schedule, stages


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
    maker = in_memory(run, maker, job.executor, world)
    about = run.data, job.executor, timeline, maker, world.rank
    stream = open_stream(*about, share=world.share, ahead=job.ahead)
    return reporter.watch(stream, timeline)


def _evaluate_now(
    run: Run,
    plan: Plan,
    stream: Stream,
    task: Task,
    ranks: Ranks,
    recorder: Recorder,
    precision: AbstractContextManager[object],
    bad: BadImages | None,
    state: TrainState,
) -> bool:
    began, waited = time.monotonic(), stream.waited
    batches = -(-plan.evaluate_rows // plan.evaluate_batch)
    slices = stream.evaluation(state.step, batches, ranks.world)
    slices = slices if bad is None else bad.met.watch(slices)
    with as_it_is(run.train):
        summary = evaluate_model(
            state.evaluated_model, slices, task, ranks, batches=batches, seed=plan.seed, precision=precision
        )
    if bad is not None:
        bad.evaluated(run.evaluate.split)
    seconds = time.monotonic() - began
    facts = {"epoch": plan.epochs(state.step), "split": run.evaluate.split}
    metric = run.evaluate.metric
    improved = state.judge(facts, task.scalars(summary), metric, mode_of(task, metric))
    state.elapsed = ranks.elapsed  # of all starts: what a search measures a trial's time by
    recorder.evaluated(state, improved, seconds=seconds, waited=stream.waited - waited)
    return improved
