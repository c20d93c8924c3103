"""A group of Ray Train workers around one session, and the driver that waits for it."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
import torch
from ray import train as ray_train
from ray.exceptions import RayError
from ray.train import collective
from ray.train import torch as ray_torch
from ray.train.v2._internal.exceptions import InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError

from raycls.config.sections.duration import Duration
from raycls.config.sections.run import Run
from raycls.errors import LaunchError, RayclsError, TrainError, from_json, one_line, to_json
from raycls.launch.gauges import Gauges
from raycls.launch.gloo import TorchConfig
from raycls.launch.mailbox import make_mailbox
from raycls.launch.starting.fitting import Trainer
from raycls.run.folder import RunFolder
from raycls.screen.run_text import STOPPING
from raycls.session.hanging.stall import write_stacks
from raycls.session.job import Decide, Job, World
from raycls.session.messages import Ended, Event, Failed, Judging, Message, Post, Reserved
from raycls.train.ranks import ABORTED
from raycls.train.reasons import Reason

__all__ = ["StopWatch", "UnplacedError", "WorkersLostError", "run_group"]

_WAIT = 0.5
_GRACE = 5.0
"""Seconds that the other workers have to end by themselves after one has reported an error."""
_SLACK, _FOR_EVER = 600.0, 30 * 86400
"""Seconds."""


class WorkersLostError(LaunchError):
    """Workers died, or raised what none of our errors is."""


class UnplacedError(WorkersLostError):
    """Workers found no place at all, within the time that Ray gives it."""


def run_group(
    function: Callable[[Job, World], dict[str, Any]],
    job: Job,
    run: Run,
    stop_asked: Callable[[], Reason],
    post: Post,
    decide: Decide | None = None,
    *,
    workers: int,
    logs: str,
) -> dict[str, Any]:
    """Run `function` on `workers` workers through `TorchTrainer`; returns rank 0's result.

    `decide` is called in this thread with each evaluation while the workers wait for its verdict, see `World`.

    `fit` runs in a thread, so that signals come to this one and Ray does not handle them. Where workers die or find no
    place WorkersLostError is raised, with the place of their `logs`; Ray replaces none. Errors of ours end the run at
    once, as they were raised. `stop_asked` may change its reason; what it says is passed on.
    """
    mailbox = make_mailbox()
    folder = f"ray-{uuid.uuid4().hex[:8]}"  # Ray Train's own state, of this start alone: nothing of ours depends on it
    trainer = _trainer(function, job, run, mailbox, folder, workers, judged=decide is not None)
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - it is raised again below, in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=fit, name="raycls-fit", daemon=True)
    thread.start()
    try:
        outcome = _wait(thread, mailbox, stop_asked, post, decide)
    except BaseException:
        trainer.abandon()
        thread.join(_GRACE)
        raise
    finally:
        _tidy(job, folder)
    if outcome is None:
        raise _lost(logs, failures)
    if isinstance(outcome, Failed):
        raise from_json(outcome.error)
    return outcome.result


def _wait(
    thread: threading.Thread,
    mailbox: Any,
    stop_asked: Callable[[], Reason],
    post: Post,
    decide: Decide | None,
) -> Ended | Failed | None:
    """Hand on messages until the group has ended; the result or the first error that was posted, if any."""
    outcome: Ended | Failed | None = None
    told, deadline = Reason.NONE, float("inf")
    while True:
        ended = not thread.is_alive()
        asked = stop_asked()
        if asked != told and not isinstance(outcome, Failed):
            told = asked
            mailbox.stop.remote(asked)
            if not asked.moves:
                post(Event(STOPPING))
        try:
            messages: list[Message] = ray.get(mailbox.take.remote(0.0 if ended else _WAIT))
        except RayError as error:
            raise LaunchError(
                "the connection to the workers was lost",
                found=one_line(error.__cause__ or error),
                fix="rerun the command to resume from the latest checkpoint",
            ) from error
        for message in messages:
            if isinstance(message, Judging) and decide is not None:
                mailbox.verdict.remote(decide(message.facts))
            elif not isinstance(message, Ended | Failed):
                post(message)
            elif not isinstance(outcome, Failed):
                outcome = message
                if isinstance(message, Failed):
                    deadline = time.monotonic() + _GRACE
                    if message.stalled:
                        mailbox.stop.remote(Reason.STALLED)
        if ended and not messages:
            return outcome
        if time.monotonic() > deadline:
            # The other ranks wait in a collective for the one that failed. Let them leave: Ray Train cleans up.
            mailbox.stop.remote(Reason.ABORT)
            deadline = float("inf")


def _tidy(job: Job, folder: str) -> None:
    with suppress(RayclsError):  # a file system that is slow to forget must not undo a run that is done
        RunFolder(job.folder).store.without_retry().delete_tree(folder)


def _trainer(
    function: Callable[[Job, World], dict[str, Any]],
    job: Job,
    run: Run,
    mailbox: Any,
    folder: str,
    workers: int,
    *,
    judged: bool,
) -> Trainer:
    gpu = job.device == "cuda"
    resources = {"CPU": run.scale.cpus_per_worker, **({"GPU": 1.0} if gpu else {})}
    return Trainer(
        _worker_main,
        decodes=job.executor == "ray",
        # An object reference: the list of a million files is sent once, not with every message.
        train_loop_config={
            "function": function,
            "job": [ray.put(job)],
            "mailbox": mailbox,
            "judged": judged,
            "notices": os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") != "0",
        },
        scaling_config=ray_train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            # CPU workers reserve next to nothing: packed, all of them would share one node.
            placement_strategy="PACK" if gpu else "SPREAD",
        ),
        run_config=ray_train.RunConfig(
            name=folder,
            storage_path=job.folder,
            # Another group is ours to start, see `launch.groups`.
            failure_config=ray_train.FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
        ),
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if gpu else "gloo", timeout_s=_collective_seconds(run.train.stall_timeout)
        ),
    )


def _collective_seconds(stall_timeout: Duration | str) -> int:
    """How long a collective may take: longer than `train.stall_timeout`, which says where each worker stands."""
    waits = stall_timeout.seconds if isinstance(stall_timeout, Duration) else None
    return int(waits + _SLACK) if waits else _FOR_EVER


def _worker_main(settings: dict[str, Any]) -> None:
    """What every worker runs. Errors of ours are posted, not raised: Ray would start the group again."""
    job: Job = ray.get(settings["job"][0])
    mailbox = settings["mailbox"]
    context = ray_train.get_context()
    rank = context.get_world_rank()
    device: Any = torch.device("cpu") if job.device == "cpu" else ray_torch.get_device()
    stop = StopWatch(mailbox, last_words=lambda: write_stacks(RunFolder(job.folder), rank))
    if rank == 0 and settings["judged"]:
        mailbox.post.remote(Reserved(_placement_group()))
    world = World(
        rank=rank,
        size=context.get_world_size(),
        device=device,
        share=collective.broadcast_from_rank_zero,
        post=lambda message: mailbox.post.remote(message) and None,
        stop_requested=stop.asked,
        preempted=_preempted if settings["notices"] else None,
        stalled=lambda error: mailbox.post.remote(Failed(to_json(error), stalled=True)) and None,
        gauge=Gauges(job.config["run"]["name"], job.search),
        decide=(lambda facts: ray.get(mailbox.judge.remote(facts))) if settings["judged"] else None,
    )
    try:
        result = settings["function"](job, world)
    except RayclsError as error:
        if isinstance(error, TrainError) and error.what == ABORTED:
            return  # the rank that has the error posts it
        ray.get(mailbox.post.remote(Failed(to_json(error))))
        return
    finally:
        stop.close()
    if rank == 0:
        ray.get(mailbox.post.remote(Ended(result)))


def _preempted() -> bool:
    """Whether a node of this group has had its notice. A barrier of all ranks, as Ray Train offers it."""
    return ray_train.get_preemption_info() is not None


def _placement_group() -> str:
    """The id of what this group of workers reserves: a search makes sure that it is given back."""
    group = ray.util.get_current_placement_group()
    return group.id.hex() if group is not None else ""


class StopWatch:
    """Waits, in a thread of its own, for the driver's request to stop. Where it is to abort, ends the process."""

    def __init__(self, mailbox: Any, last_words: Callable[[], Any] = lambda: None) -> None:
        self._mailbox, self._last_words = mailbox, last_words
        self._reason = Reason.NONE
        self._closed = False
        threading.Thread(target=self._watch, name="raycls-stop", daemon=True).start()

    def asked(self) -> Reason:
        return self._reason

    def close(self) -> None:
        self._closed = True

    def _watch(self) -> None:
        while not self._closed:
            try:
                reason: Reason = ray.get(self._mailbox.stopped.remote(self._reason, _WAIT * 4))
            except RayError:
                return  # the driver is gone, and this process follows
            if reason.aborts and not self._closed:
                if reason is Reason.STALLED:
                    with suppress(OSError, RayclsError):
                        self._last_words()
                os._exit(1)  # the loop may wait in a collective that nothing else ends
            self._reason = reason


def _lost(logs: str, failures: list[BaseException]) -> WorkersLostError:
    # A group of Ray's that cannot be placed ends with an error of its controller.
    why = getattr(failures[0], "controller_failure", None) if failures else None
    unplaced = isinstance(why, WorkerGroupStartupTimeoutError | InsufficientClusterResourcesError)
    return (UnplacedError if unplaced else WorkersLostError)(
        "the run failed: its workers were lost or raised",
        found=one_line(failures[0].__cause__ or failures[0]) if failures else "the workers ended without a result",
        fix=f"the logs are in {logs}; rerun the command to resume from the latest checkpoint; "
        "scale.workers=0 runs the same training in one process, under a debugger",
    )
