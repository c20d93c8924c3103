"""One trial of a search, in the process that Ray Tune gives it: a run like any other, whose evaluations are judged.

A trial of one worker trains in that process, in a thread; one of several workers has a group of them through
`TorchTrainer`, and the process only listens. Both end at a step boundary with a checkpoint when they are stopped, and
hand back what they hold before the process is given to the next trial.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray import tune

from raycls.cluster.environment import prepare_environment
from raycls.cluster.nodes import draining
from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.config.space.check import apply
from raycls.data.source import Dataset
from raycls.errors import CheckpointError, ConfigError, RayclsError
from raycls.launch.gauges import Gauges
from raycls.launch.trainer import make_job
from raycls.run import history
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import HANDOVER_SECONDS
from raycls.search.board import Task
from raycls.session import evaluation, training
from raycls.session.data.scored import LEFT_OUT
from raycls.session.job import Job, World
from raycls.session.messages import Advice, Message, Reserved, Started
from raycls.session.plan_file import read_plan
from raycls.session.prepare import Prepared, prepare
from raycls.session.setup import make_task
from raycls.tasks.build import TAKEN
from raycls.train.reasons import Reason
from raycls.tune.donors import take_over

__all__ = ["Shared", "TrialProcess", "set_aside_other", "trial_run"]

_BEAT = 2.0
"""Seconds after which a trial without news says that it is alive: Tune can talk to it only between two answers."""
_LEAVING = 60.0
"""Seconds that a stopped trial has for its last step and its checkpoint."""


@dataclass(frozen=True)
class Shared:
    """What all trials of a search have in common."""

    config: dict[str, Any]
    """The run that is varied."""
    dataset: Dataset
    trials: str
    """Folder or URI of the trials' run folders."""
    device: str
    workdir: str
    command: tuple[str, ...]
    mailbox: Any
    """Where the search asks every trial to stop."""
    test_split: str = "test"
    dashboard: str = ""
    """The page of the Ray job, where the search is one."""
    record: bytes | None = None
    """The splits of `dataset`, as every trial keeps them: made once for all of them."""

    @property
    def name(self) -> str:
        return str(self.config["run"]["name"])


def trial_run(base: Run, task: Task, storage: str) -> Run:
    """The run of a trial: the base with the values of `task`, its own folder, and an executor that fits in it."""
    run = apply(base, task.chosen)
    values = config.to_dict(run)
    values["run"] |= {"name": task.trial, "storage": storage}
    if task.seed is not None:
        values["run"]["seed"] = task.seed
    if run.scale.max_workers <= 1 and run.data.executor in ("auto", "ray"):
        values["data"]["executor"] = "inline"  # all executors give the same bytes
    if base.search.scheduler.name == "pbt":
        values["checkpoint"]["every"] = values["evaluate"]["every"]  # others may go on from any evaluation
    return config.from_dict(values)


def set_aside_other(base: Run, task: Task, storage: str) -> str | None:
    """Rename the folder of a trial that holds a run with other values; where it is now, None where nothing was renamed.

    So it is where the trial's line in the ledger was damaged, and the values that are suggested now are others.
    """
    folder = RunFolder.at(storage, task.trial)
    text = folder.store.find_bytes(RunFolder.CONFIG)
    if text is None:
        return None
    try:
        run, before = trial_run(base, task, storage), config.load_text(text.decode()).run
    except ConfigError:  # the trial will say so
        return None
    same = all(item.harmless or item.path in LEFT_OUT for item in config.difference(before, run))
    return None if same else folder.set_aside(timeout=HANDOVER_SECONDS)


class _Talk:
    """Between the thread that trains and Tune's calls: one result at a time, and the trial waits for the answer."""

    def __init__(self) -> None:
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._answered = threading.Semaphore(0)
        self._asked = False
        self.stopping = Reason.NONE

    def report(self, kind: str, **facts: Any) -> Reason:
        """From the trial: hand over a result and wait until Tune calls again; the reason to stop, or `NONE`.

        Tune answers no result by itself. It calls `step` again where the trial goes on, which is `next` here; to end a
        trial it calls `reset_config` or `cleanup`, which is `stop`. So the reason is that of the newest call, whatever
        the result was; once there is one, nothing is handed over any more.
        """
        if not self.stopping:
            self._results.put({"record": json.dumps({"kind": kind, **facts})})
            self._answered.acquire()
        return self.stopping

    def close(self, **facts: Any) -> None:
        """From the trial: its last words."""
        self._results.put({"record": json.dumps({"kind": "end", **facts}), "done": True})

    def next(self) -> dict[str, Any]:
        """For Tune: the next result. Asking for it says that the trial may go on after the one before."""
        if self._asked:
            self._answered.release()
        try:
            result = self._results.get(timeout=_BEAT)
        except queue.Empty:
            self._asked = False
            return {"record": ""}
        self._asked = True
        return result

    def stop(self) -> None:
        """For Tune: the trial ends at its next step boundary."""
        self.stopping = Reason.SEARCH
        self._answered.release()


class TrialProcess(tune.Trainable):
    """What Tune starts, asks and stops. The process is used for one trial after another."""

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        prepare_environment()
        if shared is None:
            raise ValueError("a trial needs what its search shares")
        from raycls.launch.group import StopWatch

        self._shared = shared
        self._watch = StopWatch(shared.mailbox)
        self._begin(config)

    def step(self) -> dict[str, Any]:
        if not self._thread.ident:  # not before: Tune makes processes that it throws away again
            self._thread.start()
        return self._talk.next()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # Tune would forget the next trial if this one were given up; one that hangs ends by its own stall watch.
        self._end(None)
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._end(_LEAVING)
        self._watch.close()
        gc.unfreeze()

    def _begin(self, config: dict[str, Any]) -> None:
        os.chdir(self._shared.workdir)  # Tune moves to a folder of its own, where no path of the config leads anywhere
        task, talk = Task(**json.loads(config["task"])), _Talk()
        donor = json.loads(config["donor"]) if config.get("donor") else None
        self._talk = talk
        self._thread = threading.Thread(
            target=_run,
            args=(task, donor, self._shared, talk, self._watch.asked),
            name=f"raycls-trial-{task.trial}",
            daemon=True,
        )

    def _end(self, seconds: float | None) -> None:
        """Stop the trial where it still runs, and wait for it, that long at most."""
        self._talk.stop()
        if self._thread.ident:
            self._thread.join(seconds)


def _run(task: Task, donor: dict[str, Any] | None, shared: Shared, talk: _Talk, asked: Callable[[], Reason]) -> None:
    """A whole trial. What goes wrong in it is the trial's end and not the search's."""
    try:
        state = _Trial(task, shared, talk, asked).run(donor)
        talk.close(state=state)
    except BaseException as error:  # noqa: BLE001 - also a plug-in's SystemExit: without an end the search would wait
        talk.close(state="failed", error=_told(error), full=_is_full(error))
    finally:
        gc.collect()  # the model of this trial must not be in memory beside the next one's
        if not gc.get_freeze_count():
            gc.freeze()  # what the first trial imported stays: later collections look at what trials made
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class _Trial:
    def __init__(self, task: Task, shared: Shared, talk: _Talk, all_asked: Callable[[], Reason]) -> None:
        self.task, self.shared, self.talk, self.all_asked = task, shared, talk, all_asked
        self.run_config = trial_run(config.from_dict(shared.config), task, shared.trials)
        self.folder = RunFolder.at(shared.trials, task.trial)
        self.verdict = Reason.NONE

    def run(self, donor: dict[str, Any] | None) -> str:
        if donor is not None:
            take_over(self.folder, self.run_config, donor)
        prepared = prepare(
            self.run_config,
            new=False,
            command=self.shared.command,
            say=lambda text: None,
            dataset=self.shared.dataset,
            record=self.shared.record,
        )
        for text in prepared.weights:
            self.talk.report("note", text=f"weights    {text}")
        if prepared.result is None:
            result = self._train(prepared)
            state = "finished" if result["state"] in ("done", "early", "budget") else "stopped"
        else:  # killed between its end and the ledger's line
            self._tell_past()
            state = "finished"
        if state == "finished" and self.task.phase == "confirm" and not self.task.tested:
            task = make_task(prepared.run, prepared.dataset.classes, None)
            self.talk.report("test", values=task.scalars(self._score(prepared)))
        return state

    def _train(self, prepared: Prepared) -> dict[str, Any]:
        shared = self.shared
        more = {"curves": False, "search": shared.name, "dashboard": shared.dashboard}
        result = self._compute(training.train, self._job(prepared, **more))
        if result["reason"] is Reason.PREEMPTED and not self.talk.report("leaving"):
            _leave()
        return result

    def _score(self, prepared: Prepared) -> dict[str, Any]:
        trained = replace(prepared, plan=read_plan(prepared.folder) or prepared.plan)  # as its training wrote it
        return self._compute(evaluation.evaluate, self._job(trained, split=self.shared.test_split))

    def _job(self, prepared: Prepared, **more: Any) -> Job:
        return make_job(prepared.run, prepared.folder, prepared.plan, prepared.dataset, self.shared.device, **more)

    def _compute(self, function: Callable[..., dict[str, Any]], job: Job) -> dict[str, Any]:
        def asked() -> Reason:
            of_all = self.all_asked()
            return of_all if of_all.signal else self.verdict or self.talk.stopping or of_all

        if self.run_config.scale.max_workers > 1:
            from raycls.launch.groups import run_in_groups

            if job.split:
                asked = lambda: Reason.NONE  # noqa: E731 - it has no end but its own
            logs = "the logs of the cluster"
            return run_in_groups(
                function, job, self.run_config, asked, self._post, self._decide, logs=logs, patient=True
            )
        device = torch.device(self.shared.device)
        gauges = Gauges(self.run_config.run.name, self.shared.name)
        world = World(
            device=device,
            post=self._post,
            stop_requested=asked,
            preempted=_noticed,
            gauge=gauges,
            decide=self._decide,
        )
        return function(job, world)

    def _post(self, message: Message) -> None:
        match message:
            case Started():
                self._tell_past(message.step - message.unevaluated)  # that one is evaluated once more
            case Reserved():
                self.talk.report("group", placement_group=message.placement_group)
            case Advice():
                self.talk.report("note", text=message.text)

    def _tell_past(self, last: int | None = None) -> None:
        """Report what was evaluated before this start, up to the step `last`: the search may have been killed before it
        heard of it.
        """
        for record in history.read(self.folder):
            if record.get("kind") == "evaluate" and (last is None or record["step"] <= last):
                self.verdict = self.verdict or self._decide({**record, "seconds": record.get("elapsed", 0.0)})

    def _decide(self, evaluated: dict[str, Any]) -> Reason:
        numbers = {name: value for name, value in evaluated.items() if isinstance(value, int | float)}
        facts = {name: numbers.pop(name) for name in ("step", "epoch", "seconds")}
        values = {name: value for name, value in numbers.items() if name not in TAKEN}
        return self.talk.report("evaluation", values=values, **facts)


def _noticed() -> bool:
    """Whether the node of this process has had its notice."""
    return ray.get_runtime_context().get_node_id() in draining()


def _leave() -> None:
    """End the process of a trial that has saved what it has: Tune starts it again on a node that stays."""
    os._exit(1)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _is_full(error: BaseException) -> bool:
    """Whether the storage of all trials takes nothing more: none of them is to blame."""
    reason = error.__cause__
    return isinstance(error, CheckpointError) and isinstance(reason, OSError) and reason.errno in _FULL


def _told(error: BaseException) -> str:
    """The error as the ledger keeps it, with the place where a plug-in raised it."""
    if isinstance(error, RayclsError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
