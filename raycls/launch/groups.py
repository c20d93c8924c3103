"""Groups of workers, one after another, until the work is done: workers join, leave, and are lost with their nodes.

A group has a fixed size. It ends at a step boundary, with a checkpoint, where there is room for more workers or where
one of its nodes is about to be taken away; the next one goes on from there. What it computes does not depend on its
size, so nothing else changes. An evaluation keeps its group, and begins anew with another one where that is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Any

from raycls.cluster.nodes import draining, nodes
from raycls.config.sections.run import Run
from raycls.errors import LaunchError, RayclsError
from raycls.launch.group import UnplacedError, WorkersLostError, run_group
from raycls.launch.placing.fit import Nodes, group_size
from raycls.launch.placing.waiting import Demand, wait_for_room
from raycls.quantities import plural
from raycls.run.folder import RunFolder
from raycls.session.job import Decide, Job, World
from raycls.session.messages import Began, Event, Lost, Message, Moved, Placing, Post
from raycls.train.reasons import Reason

__all__ = ["run_in_groups"]

_LOOK_SECONDS = 2.0
"""How often the driver asks for nodes that are about to be taken away."""
_MOST_FALSE_STARTS = 10
"""Groups in a row that are lost before they begin: a node that just died looks alive for some seconds."""
_NOTICED_SECONDS = 300.0
"""For so long after a notice the loss of workers is put down to it."""


def run_in_groups(
    function: Callable[[Job, World], dict[str, Any]],
    job: Job,
    run: Run,
    stop_asked: Callable[[], Reason],
    post: Post,
    decide: Decide | None = None,
    *,
    logs: str,
    grows: bool = False,
    patient: bool = False,
    placing: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run a training or an evaluation on as many groups of workers as it takes; returns the last one's result.

    `grows`: whether the cluster adds nodes when asked, else only a `patient` start waits for some that are not there
    yet; `placing` is called before each group. LaunchError where no room comes, or workers were lost more often than
    `scale.max_failures` allows, those after a notice apart, which `scale.max_preemption_failures` bounds.
    """
    failures, scaling, result = _FailurePolicy(run), _ScalingPolicy(), None
    while True:
        size = wait_for_room(
            run,
            job.device,
            nodes,
            patient=patient or grows or result is not None or failures.any,
            grows=grows,
            stopped=lambda: bool(stop_asked()),
            say=lambda text: post(Event(text)),
            size=scaling.size,
        )
        if not size or stop_asked():
            return _stopped(job, result, stop_asked())
        placing()
        post(Placing(size))
        watch = _Watch(job, run, size, stop_asked, post, scaling, grows=grows)
        try:
            result = run_group(function, job, run, watch.asked, watch.post, decide, workers=size, logs=logs)
        except WorkersLostError as error:
            unplaced = isinstance(error, UnplacedError)
            if unplaced:
                scaling.lower(nodes(), size)
            if failures.count(error, watch):
                post(Lost(unplaced))
            continue
        finally:
            watch.close()
        if not result.get("reason", Reason.DONE).moves:  # an evaluation has none
            return result
        if asked := stop_asked():
            return _stopped(job, result, asked)
        post(Moved(result["reason"]))
        if result["reason"] is Reason.PREEMPTED:
            failures.count_preemption(watch.noticed | draining())


class _FailurePolicy:
    """The groups that were lost, and how often that may happen."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.any = False
        self._charged = self._preempted = self._false_starts = 0
        self._excused: set[str] = set()
        self._unplaced_since = float("inf")

    def count(self, error: WorkersLostError, watch: _Watch) -> bool:
        """Count the loss of the group that `watch` saw; whether it is news.

        Raises WorkersLostError or LaunchError where it is the last one.
        """
        self.any = True
        if isinstance(error, UnplacedError):
            news = self._unplaced_since == float("inf")
            self._unplaced_since = min(self._unplaced_since, time.monotonic())
            if time.monotonic() - self._unplaced_since > (self._run.scale.wait.seconds or 0.0):
                raise LaunchError(
                    f"no room for the workers came within {self._run.scale.wait}: other programs use the cluster",
                    found=error.found,
                    fix="raise scale.wait or lower scale.workers; "
                    "rerun the command to resume from the latest checkpoint",
                ) from error
            return news
        self._unplaced_since = float("inf")
        if not watch.started:
            self._false_starts += 1
            if self._false_starts > _MOST_FALSE_STARTS:
                raise error
            return True
        self._false_starts = 0
        # A notice excuses one loss: a node that goes takes its workers along once.
        if fresh := watch.noticed - self._excused:
            self.count_preemption(fresh, error)
            return True
        self._charged += 1
        if self._charged > self._run.scale.max_failures:
            if self._charged == 1:
                raise error
            raise WorkersLostError(
                f"{error.what}, and {self._charged - 1} restarts did not help", found=error.found, fix=error.fix
            ) from error
        return True

    def count_preemption(self, nodes: Set[str], error: WorkersLostError | None = None) -> None:
        """After a notice of these nodes a group left them, or was lost with `error`: that excuses nothing more.

        Raises WorkersLostError where it was too often.
        """
        self._excused |= nodes
        self._preempted += 1
        most = self._run.scale.max_preemption_failures
        if most != "off" and self._preempted > most:
            raise WorkersLostError(
                f"{plural(self._preempted, 'time')} nodes of the run were taken away, "
                f"and scale.max_preemption_failures is {most}",
                found=error.found if error else None,
                fix="raise it, or use nodes that stay; rerun the command to resume from the latest checkpoint",
            ) from error


class _ScalingPolicy:
    """How many workers found no place, on nodes that seemed to have room for them: other programs use some of it."""

    def __init__(self) -> None:
        self._nodes: Nodes = ()
        self._most = 0

    def lower(self, there: Nodes, size: int) -> None:
        self._nodes, self._most = there, size - 1

    def size(self, run: Run, there: Nodes, device: str) -> int:
        """As `group_size`, below what found no place while the nodes were the same; at least `scale.workers`."""
        size = group_size(run, there, device)
        return max(run.scale.min_workers, min(size, self._most)) if there == self._nodes else size


def _stopped(job: Job, result: dict[str, Any] | None, reason: Reason) -> dict[str, Any]:
    """The end of a run between two groups, or before the first one."""
    if result is None:
        step = 0
        with suppress(RayclsError):
            step = max(RunFolder(job.folder).steps(), default=0)
        epochs = step / job.plan["steps_per_epoch"] if step else 0.0
        result = {"step": step, "epochs": epochs, "best": None, "final": None, "seconds": 0.0}
    return {**result, "state": "stopped", "reason": reason}


class _Watch:
    """What the cluster does while a group trains: asked several times a second, in the driver's thread."""

    def __init__(
        self,
        job: Job,
        run: Run,
        size: int,
        stop_asked: Callable[[], Reason],
        post: Post,
        scaling: _ScalingPolicy,
        *,
        grows: bool,
    ) -> None:
        self._run, self._device, self._size, self._stop_asked, self._post = run, job.device, size, stop_asked, post
        self._elastic = run.scale.elastic and not job.split
        self.started = False
        """Whether the group has come together."""
        self._scaling = scaling
        self._looked = self._sized = time.monotonic()
        self._notices: dict[str, float] = {}
        self._resize, self._other = Reason.NONE, size
        self._demand = Demand(run, job.device) if grows and self._elastic and size < run.scale.max_workers else None

    def asked(self) -> Reason:
        """Why the group is to end: a signal, or room for more workers, or for fewer."""
        now = time.monotonic()
        if self._demand is not None and self.started:
            self._demand.renew()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._notices |= dict.fromkeys(draining(), now)
        if self._elastic and now - self._sized >= (self._run.scale.resize_every.seconds or 0.0):
            self._sized = now
            size = self._scaling.size(self._run, nodes(), self._device)
            if size != self._size and size == self._other:  # seen twice: nodes that flicker move nobody
                self._resize = Reason.RESIZE
            self._other = size
        return self._stop_asked() or self._resize

    def post(self, message: Message) -> None:
        self.started = self.started or isinstance(message, Began)
        self._post(message)

    @property
    def noticed(self) -> set[str]:
        """The ids of the nodes that had their notice not long ago."""
        return {node for node, seen in self._notices.items() if time.monotonic() - seen < _NOTICED_SECONDS}

    def close(self) -> None:
        if self._demand is not None:
            self._demand.close()
