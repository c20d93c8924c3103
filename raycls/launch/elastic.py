"""Groups of workers, one after another, until a run ends: workers join, leave, and are lost with their nodes.

A group has a fixed size. It ends at a step boundary, with a checkpoint, where there is room for more workers or where
one of its nodes is about to be taken away; the next one goes on from there. What it computes does not depend on its
size, so nothing else changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from raycls.config.schema import Run
from raycls.launch import session
from raycls.launch.cluster import Cluster, draining, nodes
from raycls.launch.group import WorkersLostError, run_group
from raycls.launch.placement import Demand, group_size, wait_for_room
from raycls.launch.records import MOVES
from raycls.launch.session import Job

__all__ = ["train_in_groups"]

_LOOK_SECONDS = 2.0
"""How often the driver asks for nodes that are about to be taken away."""
_MOST_UNPLACED = 10
"""Groups in a row that are lost before they begin: a node that just died looks alive for some seconds."""
_START_SECONDS = "20"
_NOTICED_SECONDS = 300.0
"""For so long after a notice the loss of workers is put down to it."""


def train_in_groups(
    job: Job,
    run: Run,
    cluster: Cluster,
    stop_asked: Callable[[], str],
    post: Callable[[dict[str, Any]], None],
    decide: Callable[[dict[str, Any]], str] | None = None,
    *,
    patient: bool = False,
    placing: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train on as many groups of workers as it takes; returns the last one's result, see `run_group`.

    `patient`: whether to wait for nodes that are not there yet; `placing` is called before each group. LaunchError
    where no room comes, or workers were lost more often than `scale.max_failures` allows, those after a notice apart.
    """
    losses, unplaced, result = 0, 0, None
    if run.scale.elastic:  # Ray waits that long for a node that has just died
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = _START_SECONDS
    while True:
        patient = cluster.grows or patient or result is not None or losses + unplaced > 0
        size = _room(job, run, cluster, stop_asked, post, patient=patient)
        if not size:
            return _stopped(result, stop_asked())
        placing()
        post({"kind": "group-size", "workers": size})
        watch = _Watch(run, job.device, size, stop_asked, post, grows=cluster.grows)
        try:
            result = run_group(
                session.train,
                job,
                run,
                cluster,
                watch.asked,
                watch.post,
                decide,
                workers=size,
                replaced=0 if run.scale.elastic else None,
            )
        except WorkersLostError:
            if not (run.scale.elastic or watch.noticed):
                raise  # Ray has replaced them as often as it may
            losses += watch.started and not watch.noticed
            unplaced = 0 if watch.started else unplaced + 1
            if losses > run.scale.max_failures or unplaced > _MOST_UNPLACED:
                raise
            post({"kind": "lost"})
            continue
        finally:
            watch.close()
        if result["reason"] not in MOVES:
            return result
        if asked := stop_asked():
            return _stopped(result, asked)
        post({"kind": "moved", "reason": result["reason"], "step": result["step"]})


def _room(
    job: Job,
    run: Run,
    cluster: Cluster,
    stop_asked: Callable[[], str],
    post: Callable[[dict[str, Any]], None],
    *,
    patient: bool,
) -> int:
    return wait_for_room(
        run,
        job.device,
        nodes,
        patient=patient,
        grows=cluster.grows,
        stopped=lambda: bool(stop_asked()),
        say=lambda text: post({"kind": "event", "text": text}),
    )


def _stopped(result: dict[str, Any] | None, reason: str) -> dict[str, Any]:
    """The end of a run between two groups, or before the first one."""
    nothing = {"step": 0, "epochs": 0.0, "best": None, "final": None, "seconds": 0.0}
    return {**(result or nothing), "state": "stopped", "reason": reason}


class _Watch:
    """What the cluster does while a group trains: asked several times a second, in the driver's thread."""

    def __init__(
        self,
        run: Run,
        device: str,
        size: int,
        stop_asked: Callable[[], str],
        post: Callable[[dict[str, Any]], None],
        *,
        grows: bool,
    ) -> None:
        self._run, self._device, self._size, self._stop_asked, self._post = run, device, size, stop_asked, post
        self.started = False
        """Whether the group has begun to train."""
        self._looked = self._sized = time.monotonic()
        self._notice = float("-inf")
        self._resize, self._other = "", size
        self._demand = Demand(run, device) if grows and size < run.scale.most else None

    def asked(self) -> str:
        """Why the group is to end: a signal, or room for more workers, or for fewer."""
        now = time.monotonic()
        if self._demand is not None and self.started:
            self._demand.renew()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if draining():
                self._notice = now
        if self._run.scale.elastic and now - self._sized >= (self._run.scale.resize_every.seconds or 0.0):
            self._sized = now
            size = group_size(self._run, nodes(), self._device)
            if size != self._size and size == self._other:  # seen twice: nodes that flicker move nobody
                self._resize = "resize"
            self._other = size
        return self._stop_asked() or self._resize

    def post(self, record: dict[str, Any]) -> None:
        self.started = self.started or record["kind"] == "start"
        self._post(record)

    @property
    def noticed(self) -> bool:
        """Whether a node had its notice not long ago."""
        return time.monotonic() - self._notice < _NOTICED_SECONDS

    def close(self) -> None:
        if self._demand is not None:
            self._demand.close()
