"""From a config to Ray's TorchTrainer, or to this process: the words are the same, the bits are too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from raycls.cluster.connection import running_cluster
from raycls.cluster.environment import joined_address
from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.errors import EXIT_DONE, CheckpointError
from raycls.launch.placing.ahead import made_apart, reads_ahead
from raycls.launch.placing.executor import choose, seconds_per_sample, with_executor
from raycls.launch.placing.fit import check_device, check_growth, executor_of
from raycls.launch.starting.short import placed, shorter_here
from raycls.launch.starting.warming import warm_workers
from raycls.launch.stopping import StopRequest, exit_code
from raycls.progress import progress
from raycls.quantities import cores, plural
from raycls.run.folder import RunFolder
from raycls.run.outcome import Outcome
from raycls.screen.run import Display
from raycls.screen.run_text import STOPPING
from raycls.session import evaluation, training
from raycls.session.consistency import nonce_of
from raycls.session.data.limited import dev_run, sweep_dev_run
from raycls.session.job import Job, World
from raycls.session.messages import Evaluated, Event, Lost, Message, Moved, Placing, Post, Started, Trained, Working
from raycls.session.plan_file import required_plan
from raycls.session.prepare import Prepared, prepare, reduction_of
from raycls.session.scoring.opened import Asked, opened
from raycls.session.scoring.options import UNWRITTEN, Scoring, unwritten
from raycls.session.setup import device_of, make_task, refuse_missing_gpu
from raycls.train.plan import Plan
from raycls.train.reasons import Reason
from raycls.train.recovery.divided import parts_at

__all__ = ["connecting", "evaluate", "make_job", "read_ahead", "train"]

_LOST = "workers were lost"
_MOVED = {Reason.RESIZE: "the cluster has changed its size", Reason.PREEMPTED: "a node is being taken away"}


def train(run: Run, *, new: bool = False, command: Sequence[str] = (), display: Display) -> Outcome:
    """Train `run`, or go on with it, and wait for its end. Blocks; SIGINT and SIGTERM end it after a checkpoint."""
    began = time.monotonic()
    _look_around(run)
    if run.train.fast_dev_run:
        run, new = dev_run(run), True
        sweep_dev_run(run)
    with StopRequest(display.abandon) as stop:
        prepared = prepare(run, new=new, command=command, say=display.event)
        if prepared.result is not None:
            result = {**prepared.result, "state": "already"}
        elif run.scale.max_workers == 0:
            result = _train_here(prepared, stop, display)
        else:
            job_on = partial(make_job, run, prepared.folder, prepared.plan, prepared.dataset)
            result = _on_ray(training.train, run, job_on, stop.asked, display, partial(_Poster, prepared, display))
    outcome = _outcome(result, prepared.folder, began)
    display.finish(outcome, prepared.dataset.splits, overfit=run.train.overfit != "off")
    return outcome


def evaluate(
    folder: str,
    *,
    split: str | None = None,
    data: str | None = None,
    extra_classes: str = "refuse",
    weights: str | None = None,
    scoring: Scoring | None = None,
    overrides: Sequence[str] = (),
    display: Display,
) -> dict[str, Any]:
    """Evaluate weights of the run in `folder`; returns the summary of its task, what was scored, the `count` of samples
    and of which `weights`.

    `scoring` asks for what needs the network's answer to each row, and has the predictions written; None: counts alone.

    `split` is one of those that the run was started with; `data` is other data, which is scored as a whole, see
    `scored.score`. `weights` is `best`, `last` or `step-N`, see `kept.choose`.
    `overrides` are `path=value` texts on the run's config, for example `scale.workers=0`: who computes
    and where the data is. Another option is refused, the model and its arithmetic are those of the training.
    """
    store = RunFolder(folder)
    store.store.check()
    what = opened(
        store,
        Asked(folder, split, data, extra_classes, weights, tuple(overrides), scoring),
        check=partial(_look_around_for, store, data, overrides),
        say=display.event,
    )
    run, why = placed(what, store, overrides)
    count = len(what.dataset.splits[what.split])
    evaluating = f"evaluating {plural(count, 'image')} of {what.told}{why}"
    more = {"split": what.split, "weights": what.weights, "scoring": what.scoring}
    job_on = partial(make_job, run, store, what.plan, what.dataset, **more)
    # No request to stop here: nothing is lost where an evaluation is interrupted.
    if run.scale.max_workers == 0:
        device = device_of(run, torch.cuda.device_count())
        display.event(evaluating)
        world = World(device=torch.device(device), post=partial(_show, display))
        summary = evaluation.evaluate(read_ahead(job_on(device), run, cores()), world)
    else:

        def post(message: Message) -> None:
            if isinstance(message, Placing):
                display.event(evaluating)
                progress(f"starting {plural(message.workers, 'worker')}")
            _show(display, message)

        summary = _on_ray(evaluation.evaluate, run, job_on, lambda: Reason.NONE, display, lambda job: post)
    summary = {**what.facts, "weights": what.weights.to_dict(), "count": count, **summary}
    if what.scoring is not None and what.scoring.predictions != "off" and UNWRITTEN not in summary:
        try:
            store.write_json(what.scoring.summary_file, {**summary, "provenance": dict(what.scoring.provenance)})
        except CheckpointError as error:
            summary |= unwritten(error)
    return summary


def _train_here(prepared: Prepared, stop: StopRequest, display: Display) -> dict[str, Any]:
    run = prepared.run
    device = device_of(run, torch.cuda.device_count())
    job = read_ahead(make_job(run, prepared.folder, prepared.plan, prepared.dataset, device), run, cores())
    answered = False

    def stop_requested() -> Reason:
        nonlocal answered
        reason = stop.asked()
        if reason and not answered:
            answered = True
            display.event(STOPPING)
        return reason

    world = World(
        device=torch.device(device),
        post=_Poster(prepared, display, job),
        stop_requested=stop_requested,
    )
    return training.train(job, world)


def _on_ray(
    function: Callable[[Job, World], dict[str, Any]],
    run: Run,
    job_on: Callable[..., Job],
    stop_asked: Callable[[], Reason],
    display: Display,
    post: Callable[[Job], Post],
) -> dict[str, Any]:
    display.event(connecting())
    progress(connecting())
    with running_cluster() as cluster:
        from raycls.launch.gauges import job_page
        from raycls.launch.groups import run_in_groups
        from raycls.launch.node_checks import Mark, Sight

        device = device_of(run, cluster.gpus)
        job = job_on(device, dashboard=job_page())
        takes = partial(seconds_per_sample, run, job.dataset, Plan.from_dict(job.plan), job.split)
        choice = choose(run, cluster.nodes, device, grows=cluster.grows, decoding_s=takes)
        job, run = replace(job, executor=choice.executor, why=choice.why), with_executor(run, choice.executor)
        job = read_ahead(job, run, sum(node.get("CPU", 0.0) for node in cluster.nodes))
        check_device(run, device, cluster)
        check_growth(run, device, cluster)
        sight = Sight(run, Mark(job.folder, RunFolder.ENV, job.nonce), cluster, device, display.event)
        return run_in_groups(
            function,
            job,
            run,
            stop_asked,
            post(job),
            logs=cluster.logs,
            grows=cluster.grows,
            placing=sight.check,
        )


def read_ahead(job: Job, run: Run, cpus: float) -> Job:
    """`job` as it is placed on so many CPUs: whether a thread reads ahead."""
    apart = partial(made_apart, run, job.dataset.classes, Plan.from_dict(job.plan))
    ahead, why = reads_ahead(run, job.executor, job.device, cpus, apart)
    return replace(job, ahead=ahead, why=job.why or why)


def make_job(
    run: Run,
    folder: RunFolder,
    plan: Plan,
    dataset: Any,
    device: str,
    **more: Any,
) -> Job:
    """What the workers of a run are told; `more` are fields of `Job` that have a default."""
    plan = replace(plan, reduction=plan.reduction or reduction_of(run, device))
    return Job(
        config=config.to_dict(run),
        folder=folder.uri,
        plan=plan.to_dict(),
        dataset=dataset,
        device=device,
        executor=executor_of(run),
        workdir=os.getcwd(),
        nonce=nonce_of(folder),
        **more,
    )


def _look_around(run: Run) -> None:
    """Refuse a GPU that is not in this machine, where the run stays in this process; else have its workers warmed."""
    if run.scale.max_workers == 0:
        refuse_missing_gpu(run)
    else:
        warm_workers()


def _look_around_for(store: RunFolder, data: str | None, overrides: Sequence[str], run: Run) -> None:
    """As `_look_around`, where the evaluation of a split of the run is not likely to stay here: see `short.placed`."""
    if data is not None or not shorter_here(run, store, required_plan(store).samples, overrides):
        _look_around(run)


def connecting() -> str:
    """What is about to be done to have a Ray, in words."""
    address = joined_address()
    return f"joining Ray at {address}" if address else "starting Ray"


_GONE = "workers were lost: looking for room for others"
_UNPLACED = "other programs use the cluster: looking for room again, until scale.wait is over"


def _show(display: Display, message: Message) -> None:
    """What is shown of a message as it is."""
    match message:
        case Event():
            display.event(message.text)
        case Lost():
            display.event(_UNPLACED if message.unplaced else _GONE)
        case Working():
            display.tell(message.now, waits=message.waits, ago=message.ago, steps=message.steps)
        case Trained():
            display.trained(message.record, evaluation_follows=message.evaluation_follows)
        case Evaluated():
            display.evaluated(message.record, message.metric)


class _Poster:
    """Tells the display what becomes of the groups of a run; the start of the first one is the header."""

    def __init__(self, prepared: Prepared, display: Display, job: Job) -> None:
        self.prepared, self.display, self.job = prepared, display, job
        self.started = False
        self.why = _LOST

    def __call__(self, message: Message) -> None:
        match message:
            case Placing():
                workers = plural(message.workers, "worker")
                self.display.event(f"placing {workers}")
                progress(f"starting {workers}")
            case Moved():
                self.why = _MOVED[message.reason]
            case Started() if self.started:
                on = f" on {plural(message.workers, 'worker')}" if self.prepared.run.scale.elastic else ""
                self.display.resumed(message.step, f"{self.why}; resuming from step {message.step}{on}")
                self.why = _LOST
            case Started():
                self.started = True
                self.display.start(self._header(message))
            case _:
                _show(self.display, message)

    def _header(self, start: Started) -> dict[str, Any]:
        run, plan, dataset = self.prepared.run, self.prepared.plan, self.prepared.dataset
        task = make_task(run, dataset.classes, None)
        return {
            "folder": self.prepared.folder.store.describe(),
            "source": " ".join(filter(None, (run.data.source.name, run.data.source.path))),
            "classes": len(dataset.classes),
            "splits": {name: len(split) for name, split in dataset.splits.items()},
            "cut_from_train": dataset.cut_from_train,
            "overfit": run.train.overfit != "off",
            "left_out": self.prepared.left_out,
            "measured": task.measured,
            "metrics": task.metrics,
            "model": run.model.name,
            "parameters": self.prepared.parameters,
            "weights": self.prepared.weights,
            "workers": start.workers if run.scale.max_workers else 0,
            "elastic": (run.scale.min_workers, run.scale.max_workers) if run.scale.elastic else None,
            "threads": run.scale.threads,
            "executor": self.job.executor,
            "executor_why": self.job.why,
            "ahead": self.job.ahead,
            "device": self.job.device,
            "precision": start.precision,
            "reduction": Plan.from_dict(self.job.plan).reduction,
            "batch_size": plan.batch_size,
            "micro_batches": plan.micro_batches * parts_at(start.divided, start.step),
            "steps_per_epoch": plan.steps_per_epoch,
            "total_steps": plan.total_steps,
            "start_step": start.step,
            "attempt": start.attempt,
            "command": self.prepared.command,
            "dashboard": self.job.dashboard,
        }


def _outcome(result: dict[str, Any], folder: RunFolder, began: float) -> Outcome:
    state = result["state"]
    return Outcome(
        state=state,
        folder=folder.store.describe(),
        step=result["step"],
        epochs=result["epochs"],
        best=result["best"],
        final=result["final"],
        kept=result.get("kept"),
        exit_code=exit_code(result["reason"]) if state in ("stopped", "budget") else EXIT_DONE,
        seconds=time.monotonic() - began,
    )
