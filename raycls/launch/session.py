"""One worker's side of a run: from a plain description of the job to the loop, with or without Ray.

Nothing here knows Ray: the world (rank, size, how to share an object, whom to tell) is handed in, by
`trainer` for a worker of a cluster and for this process alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import torch

from raycls.config import load as config
from raycls.config.schema import Run
from raycls.data import augment
from raycls.data.slices import Maker, Timeline
from raycls.data.source import Dataset
from raycls.data.stream import Stream, open_stream
from raycls.errors import RayclsError, from_json, to_json
from raycls.launch.judged import Judged
from raycls.launch.longer import write_duration
from raycls.launch.preflight import image_size
from raycls.launch.records import Recorder
from raycls.launch.reporter import Reporter
from raycls.launch.same import check_shared, compare_cpus, warn_of_changes
from raycls.launch.stall import Stall, leave
from raycls.models import zoo
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.run import checkpoint, kept
from raycls.run.folder import RunFolder
from raycls.run.kept import Weights
from raycls.run.lock import HANDOVER_SECONDS, Lock
from raycls.train.evaluate import evaluate as evaluate_model
from raycls.train.loop import train as train_loop
from raycls.train.optim import EarlyStop, Plateau, build_optimizer, lr_factor
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic, cpu_kind, emulated, precision_dtype, resolve_precision
from raycls.train.reduction import make_reduction
from raycls.train.state import TrainState, moving_average
from raycls.train.task import Classification, generators_put_back
from raycls.train.worker import Worker

__all__ = ["Job", "World", "evaluate", "train"]


@dataclass(frozen=True)
class Job:
    """What is to be done, as plain values that travel to every worker."""

    config: dict[str, Any]
    folder: str
    plan: dict[str, Any]
    dataset: Dataset
    device: str
    """`cpu` or `cuda`."""
    reduction: str
    executor: str
    workdir: str
    """Where plug-ins may come from: the working directory of the command."""
    nonce: str
    """sha256 of the run's `env.json` as the driver sees it: whether a worker sees the same folder."""
    split: str = ""
    """For an evaluation: the split."""
    weights: Weights | None = None
    """For an evaluation: which weights; None is what `model/` holds."""
    curves: bool = True
    """Whether `curves.svg` is drawn: it takes longer than a small trial, and a search draws all of its trials."""
    search: str = ""
    """The search that this run is a trial of."""
    dashboard: str = ""
    """The page of the Ray job, where the run is one."""
    start: str = field(default_factory=lambda: uuid4().hex)
    """Which start of the run this is: its groups of workers, one after another, are one family of writers."""


@dataclass
class World:
    """This worker's place among the others, and its lines to them and to the driver."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    share: Callable[[Any], Any] = lambda value: value
    """Hands every rank what rank 0 passes in; a collective call."""
    post: Callable[[dict[str, Any]], None] = lambda record: None
    """Tells the driver something for its display."""
    stop_requested: Callable[[], str] = lambda: ""
    preempted: Callable[[], bool] | None = None
    """Whether a node of this group is about to be taken away; a collective call, the same on every rank."""
    stalled: Callable[[RayclsError], None] = leave
    """Told, in a thread of its own, that this worker does not get on: it ends the process, or has it ended."""
    gauge: Callable[[dict[str, Any]], None] = lambda record: None
    """Handed every record of rank 0, for Ray's metrics."""
    decide: Callable[[dict[str, Any]], str] | None = None
    """Asked on rank 0 about each evaluation, once its checkpoint is on the disk and before the next step: empty to go
    on, or the reason to stop. Of a search; a run of its own has nobody to ask."""


@no_exit()
def train(job: Job, world: World) -> dict[str, Any]:
    """Train until the plan, the budget, a signal or an error ends it. Returns what `Recorder.result` says."""
    run, plan = config.from_dict(job.config), Plan.from_dict(job.plan)
    folder = RunFolder(job.folder)
    os.environ["RAYCLS_WORKDIR"] = job.workdir
    judged = Judged(world.decide if world.rank == 0 else None, world.stop_requested)
    worker = Worker(
        world.rank,
        world.size,
        world.device,
        stop_requested=judged.stop_requested,
        preempted=world.preempted,
        budget_seconds=plan.budget_seconds,
        save_seconds=plan.checkpoint_seconds,
    )
    with ExitStack() as stack:
        reporter = _surrounded(run, job, world, stack)
        lock = _lock(folder, job.start, world, stack)
        stack.enter_context(Stall(worker, folder, run.train.stall_timeout, world.stalled))
        start = _agree_on_start(run, job, plan, folder, world)
        stream = _open(run, job, plan, start, world, reporter)
        stack.callback(stream.close)
        state, task = _together(worker, partial(_build, run, job, plan, folder, start, world))
        worker.elapsed_before = state.elapsed
        recorder = Recorder(run, plan, folder, worker, start["attempt"], world.post, job.dataset, curves=job.curves)
        stack.enter_context(recorder).gauge = world.gauge
        _together(worker, partial(recorder.track, job.search, job.dashboard))
        worker.pending_error = lambda: recorder.pending_error() or lock.error
        judged.watch(state, recorder)
        if job.reduction == "exact" and job.device == "cpu":
            compare_cpus(worker, lambda text: _tell(world, f"warning: {text}"))
        reduction = make_reduction(
            job.reduction,
            state.model,
            plan.order,
            rank=world.rank,
            world=world.size,
            device=world.device,
            image=_together(worker, partial(image_size, run, job.dataset, plan)),
        )
        evaluate = partial(_evaluate_now, run, plan, job.dataset, stream, task, worker, recorder)
        reason = train_loop(
            state,
            plan,
            task,
            stream,
            worker,
            reduction,
            lr=_learning_rate(run, plan),
            clip_norm=float("inf") if isinstance(run.optim.clip_norm, str) else run.optim.clip_norm,
            skip_non_finite=run.train.non_finite == "skip",
            seen=recorder.seen,
            log=recorder.log,
            evaluate=evaluate,
            save=recorder.save,
        )
        result = recorder.finish(state, reason)
        judged.verdict()
        return result


@no_exit()
def evaluate(job: Job, world: World) -> dict[str, Any]:
    """Evaluate weights of a run on `job.split`; returns `metrics.summarise`'s dictionary."""
    run, plan = config.from_dict(job.config), Plan.from_dict(job.plan)
    os.environ["RAYCLS_WORKDIR"] = job.workdir
    worker = Worker(world.rank, world.size, world.device)
    rows = len(job.dataset.splits[job.split])
    batches = -(-rows // plan.evaluate_batch)
    with ExitStack() as stack:
        reporter = _surrounded(run, job, world, stack)
        stack.enter_context(Stall(worker, RunFolder(job.folder), run.train.stall_timeout, world.stalled))
        timeline = Timeline(plan.order, world.size, 0, 0, 1, rows, plan.evaluate_batch, True)
        maker = _maker(run, plan, job.dataset, world.size, job.split)
        stream = open_stream(run.data, job.executor, timeline, maker, world.rank, share=world.share)
        stack.callback(reporter.watch(stream, timeline).close)
        model, task = _together(worker, partial(_build_final, run, job, world))
        slices = stream.evaluation(0, batches, world.size)
        return evaluate_model(model, slices, task, worker, batches=batches, classes=job.dataset.classes)


def _surrounded(run: Run, job: Job, world: World, stack: ExitStack) -> Reporter:
    """What every computation of a rank has around it; the reporter of rank 0 says how far it is."""
    stack.enter_context(arithmetic(threads=run.scale.threads, strict=job.reduction == "exact"))
    stack.enter_context(generators_put_back())
    return stack.enter_context(Reporter(world.post, quiet=world.rank > 0 or bool(job.search)))


def _lock(folder: RunFolder, start: str, world: World, stack: ExitStack) -> Lock:
    """The lock of the run folder, held by rank 0 until `stack` is left; the display hears of a storage that is away."""
    say = partial(_tell, world)
    folder.store.tell(say)
    lock = Lock(folder, "train", timeout=HANDOVER_SECONDS, say=say, family=start)
    if world.rank == 0:
        stack.enter_context(lock)
    return lock


def _together(worker: Worker, build: Callable[[], Any]) -> Any:
    """Run `build` on every rank; where one rank fails, all raise."""
    made, error = None, None
    try:
        made = build()
    except RayclsError as failed:
        error = failed
    worker.check(error)
    return made


def _agree_on_start(run: Run, job: Job, plan: Plan, folder: RunFolder, world: World) -> dict[str, Any]:
    """Rank 0 looks for the newest good checkpoint and opens an attempt; every rank hears of it."""
    begun: dict[str, Any] = {}
    if world.rank == 0:
        try:
            begun = _begin(run, job, plan, folder, world)
        except RayclsError as error:
            begun = {"error": to_json(error)}
    begun = world.share(begun)
    if "error" in begun:
        raise from_json(begun["error"])
    return begun


def _tell(world: World, text: str) -> None:
    world.post({"kind": "event", "text": text})


def _begin(run: Run, job: Job, plan: Plan, folder: RunFolder, world: World) -> dict[str, Any]:
    def warn(text: str) -> None:
        _tell(world, f"warning: {text}")

    check_shared(folder, job.nonce)
    progress("looking for the latest checkpoint")
    state = checkpoint.newest(folder, on_bad=warn)
    step = state.step if state else 0
    written = folder.read_json(RunFolder.PLAN) or {}
    precision = written.get("precision") or resolve_precision(run.train.amp, world.device)
    if not written:
        first = {**plan.to_dict(), "reduction": job.reduction, "device": job.device, "precision": precision}
        folder.write_json(RunFolder.PLAN, first)
    else:
        write_duration(folder, run)
        longer = written["total_steps"] != plan.total_steps
        now = {**written, **(plan.to_dict() if longer else {})}
        if plan.left_out:
            now["left_out"] = list(plan.left_out)
        if now != written:
            folder.write_json(RunFolder.PLAN, now)
    here = {"device": job.device, "cpu": cpu_kind()}
    if job.device == "cuda":
        here["gpu"] = torch.cuda.get_device_name(world.device)
    for attempt in folder.attempts()[-1:]:
        warn_of_changes(attempt, here, reduction=job.reduction, workers=world.size, warn=warn)
    if slow := emulated(precision, world.device):
        # `once`: a search has many trials, and one of them is enough to say it
        fix = "train.amp=off" + (" with --new" if written else "")
        world.post({"kind": "event", "text": f"warning: {slow}; fix: {fix}", "once": True, "what": slow, "fix": fix})
    left_out = {"left_out": list(plan.left_out)} if plan.left_out else {}
    attempt = folder.begin_attempt(step, world.size, run.scale.threads, executor=job.executor, **here, **left_out)
    unevaluated = state is not None and bool(state.trees["train"].get("unevaluated"))
    begun = {"step": step, "unevaluated": unevaluated, "attempt": attempt, "precision": precision}
    world.post({"kind": "start", "workers": world.size, **begun})
    return begun


def _build(
    run: Run, job: Job, plan: Plan, folder: RunFolder, start: dict[str, Any], world: World
) -> tuple[TrainState, Classification]:
    """Model, optimizer and what goes with them, at the step of the checkpoint."""
    check_shared(folder, job.nonce)
    resumed = start["step"] > 0
    progress("building the model")
    model = zoo.build(run.model, plan.classes, run.run.seed, load=not resumed, classes=job.dataset.classes)
    task = _task(run, start["precision"], world.device)
    model.to(device=world.device, memory_format=task.layout)  # pyright: ignore[reportCallIssue]
    scaler = torch.amp.GradScaler(world.device.type, enabled=start["precision"] == "fp16")  # type: ignore[attr-defined]
    state = TrainState(
        model=model,
        optimizer=build_optimizer(run.optim, model),
        ema=moving_average(model, run.optim.ema, run.optim.ema_warmup),
        scaler=scaler,
        plateau=Plateau.of(run.schedule),
        early_stop=EarlyStop.of(run.train.early_stop, run.evaluate.metric),
    )
    if resumed:
        options = [{name: group[name] for name in group if name != "params"} for group in state.optimizer.param_groups]
        progress("loading the checkpoint")
        state.load(checkpoint.load(folder, start["step"]).trees)
        # The config's, not the checkpoint's: they differ where a trial goes on from another one's weights.
        for group, own in zip(state.optimizer.param_groups, options, strict=True):
            group.update(own)
    return state, task


def _build_final(run: Run, job: Job, world: World) -> tuple[torch.nn.Module, Classification]:
    folder = RunFolder(job.folder)
    check_shared(folder, job.nonce)
    tensors = kept.load(folder, job.weights or kept.choose(folder, None))
    plan = folder.read_json(RunFolder.PLAN) or {}
    task = _task(run, plan.get("precision", "off"), world.device)
    model = zoo.build(run.model, len(job.dataset.classes), run.run.seed, load=False)
    model.load_state_dict(tensors)
    return model.to(device=world.device, memory_format=task.layout), task  # pyright: ignore[reportCallIssue]


def _task(run: Run, precision: str, device: torch.device) -> Classification:
    return Classification(
        seed=run.run.seed,
        mean=run.augment.mean,
        std=run.augment.std,
        label_smoothing=run.loss.label_smoothing,
        amp=precision_dtype(precision),
        channels_last=run.train.memory_format == "channels_last",
        device=device,
    )


def _open(run: Run, job: Job, plan: Plan, start: dict[str, Any], world: World, reporter: Reporter) -> Stream:
    timeline = Timeline(
        plan.order,
        world.size,
        start["step"],
        plan.total_steps,
        plan.evaluate_every,
        plan.evaluate_rows,
        plan.evaluate_batch,
        start["unevaluated"],
    )
    maker = _maker(run, plan, job.dataset, world.size, run.evaluate.split)
    stream = open_stream(run.data, job.executor, timeline, maker, world.rank, share=world.share)
    return reporter.watch(stream, timeline)


def _maker(run: Run, plan: Plan, dataset: Dataset, world: int, split: str) -> Maker:
    size, most = run.data.image_size, run.data.max_pixels
    evaluated = dataset.splits.get(split)
    return Maker(
        order=plan.order,
        world=world,
        train=dataset.splits.get("train", evaluated),
        evaluated=evaluated,
        evaluate_batch=plan.evaluate_batch,
        train_augment=augment.build(run.augment.train, train=True, image_size=size, max_pixels=most),
        evaluate_augment=augment.build(run.augment.eval, train=False, image_size=size, max_pixels=most),
    )


def _learning_rate(run: Run, plan: Plan) -> Callable[[int], float]:
    def rate(step: int) -> float:
        factor = lr_factor(run.schedule, step, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
        return run.optim.lr * factor

    return rate


def _evaluate_now(
    run: Run,
    plan: Plan,
    dataset: Dataset,
    stream: Stream,
    task: Classification,
    worker: Worker,
    recorder: Recorder,
    state: TrainState,
) -> bool:
    began, waited = time.monotonic(), stream.waited
    batches = -(-plan.evaluate_rows // plan.evaluate_batch)
    slices = stream.evaluation(state.step, batches, worker.world)
    summary = evaluate_model(state.evaluated_model, slices, task, worker, batches=batches, classes=dataset.classes)
    seconds = time.monotonic() - began
    return recorder.evaluated(state, summary, seconds=seconds, waited=stream.waited - waited)
