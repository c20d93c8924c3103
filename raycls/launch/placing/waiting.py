"""The wait for nodes that may come: asked for again and again, until they are there or the time is up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from raycls.cluster.growth import refuses
from raycls.config.sections.duration import Duration
from raycls.config.sections.run import Run
from raycls.errors import LaunchError
from raycls.launch.placing.fit import DECODING_CPUS, READING_CPUS, Nodes, check_fit, described, executor_of, group_size
from raycls.progress import progress

__all__ = ["Demand", "Request", "wait_for_nodes", "wait_for_room"]

_LOOK_SECONDS = 1.0
_RENEW_SECONDS, _FORGET_SECONDS = 20.0, 90.0
_ANSWER_SECONDS = 15.0
"""How long an autoscaler, which looks every five seconds, takes to say that something is too much."""

Bundles = Sequence[Mapping[str, float]]
"""What is to be on one node each."""


class Request:
    """Tells a cluster that can grow how large it is to be: `minimum` to `maximum` times `unit`, and `beside`.

    Through the actor that Ray Train and Ray Data use for that: it adds up what all of them ask for, and forgets a
    request that is not renewed. With `ray.autoscaler.sdk.request_resources` the nodes of a driver that was killed would
    stay for ever. Ray's newer autoscaler adds nothing at all where it could not add everything: then less is asked for.
    """

    def __init__(self, unit: Bundles, minimum: int, maximum: int, beside: Bundles = ()) -> None:
        self._unit, self._beside, self._min, self._max = list(unit), list(beside), minimum, maximum
        self._count, self._granted, self._refused = maximum, 0, sys.maxsize
        self._name = f"raycls-{uuid4().hex}"
        self._asked = self._changed = float("-inf")
        self._coordinator: Any = None

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What is asked for now."""
        return [dict(bundle) for bundle in (*self._unit * self._count, *self._beside)]

    def want(self, maximum: int) -> None:
        """Ask for so many units from now on."""
        if maximum != self._max:
            self._max = maximum
            self._count = max(self._min, maximum if self._refused == sys.maxsize else min(maximum, self._count))
            self._asked = float("-inf")

    def renew(self) -> None:
        """Ask, or ask again before it is forgotten; cheap enough to be called at any time."""
        from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client

        autoscaling: Any = autoscaling_coordinator_client  # not made for others, and the only one whose requests end

        now = time.monotonic()
        if self._coordinator is not None and now - self._changed >= _ANSWER_SECONDS:
            self._changed = now
            self.answer(refused=refuses())
        if now - self._asked < _RENEW_SECONDS:
            return
        self._changed = now if self._coordinator is None else self._changed
        self._asked = now
        self._coordinator = self._coordinator or autoscaling.get_or_create_autoscaling_coordinator()
        self._coordinator.request_resources.remote(
            requester_id=self._name,
            resources=self.bundles,
            expire_after_s=_FORGET_SECONDS,
            priority=autoscaling.ResourceRequestPriority.LOW,  # what decoding needs of the nodes comes first
        )

    def answer(self, *, refused: bool) -> None:
        """Come closer to the maximum that the cluster can add."""
        before = self._count
        if refused:
            self._refused, self._granted = min(self._refused, before), min(self._granted, before - 1)
            self._count = max(self._min, (self._granted + before) // 2)
        elif before < (ceiling := min(self._max, self._refused - 1)):
            self._granted = before
            self._count = (before + ceiling + 1) // 2
        if self._count != before:
            self._asked = float("-inf")

    def close(self) -> None:
        """Ask for nothing any more, until the next `renew`."""
        if self._coordinator is not None:
            self._coordinator.cancel_request.remote(requester_id=self._name)
            self._asked = float("-inf")


class Demand(Request):
    """The request of a run: nodes for `scale.workers`, and for one decoding task whatever the workers leave."""

    def __init__(self, run: Run, device: str) -> None:
        each = {"CPU": run.scale.cpus}
        unit = {**each, **({"GPU": 1.0} if device == "cuda" else {})}
        beside = [{"CPU": DECODING_CPUS + READING_CPUS}] if executor_of(run) == "ray" else []
        super().__init__([unit], run.scale.min_workers, run.scale.max_workers, beside)


def wait_for_room(
    run: Run,
    device: str,
    nodes: Callable[[], Nodes],
    *,
    patient: bool,
    grows: bool,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
    size: Callable[[Run, Nodes, str], int] = group_size,
) -> int:
    """Workers of the next group, by `size`; 0 where `stopped` came first. Waits up to `scale.wait` for nodes where
    `patient`, and asks for them where the cluster `grows`.

    Raises LaunchError where what is there does not do, and nothing more came or can come.
    """
    workers = f"{run.scale.min_workers}" + (f" to {run.scale.max_workers}" if run.scale.elastic else "")
    there = wait_for_nodes(
        lambda seen: check_fit(run, seen, device, executor_of(run)),
        nodes,
        f"{workers} x ({_each_text(run, device)})",
        run.scale.wait,
        demand=Demand(run, device) if grows else None,
        patient=patient,
        stopped=stopped,
        say=say,
    )
    return 0 if there is None else size(run, there, device)


def wait_for_nodes(
    fits: Callable[[Nodes], None],
    nodes: Callable[[], Nodes],
    what: str,
    wait: Duration,
    *,
    demand: Request | None,
    patient: bool,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> Nodes | None:
    """The nodes as soon as `fits` does not raise LaunchError for them, see `wait_for_room`; None where `stopped`."""
    began, told = time.monotonic(), False
    try:
        while True:
            there = nodes()
            try:
                fits(there)
                return there
            except LaunchError as error:
                waited = time.monotonic() - began
                if not patient or waited >= (wait.seconds or 0.0):
                    raise _waited(error, waited) if patient else error from None
                if not told:
                    told = True
                    say(f"waiting up to {wait} for nodes with {what}; {described(there)}")
                progress(f"waiting up to {wait} for nodes with {what}", len(there), unit="there")
                if demand is not None:
                    demand.renew()
            if stopped():
                return None
            time.sleep(_LOOK_SECONDS)
    finally:
        if demand is not None:
            demand.close()


def _each_text(run: Run, device: str) -> str:
    """What one worker keeps busy, in words."""
    cpus = f"{run.scale.cpus:g} CPUs"
    return f"{cpus}, 1 GPU" if device == "cuda" else cpus


def _waited(error: LaunchError, seconds: float) -> LaunchError:
    return LaunchError(
        f"no nodes came within {seconds:.0f} seconds that the run fits on",
        found=error.found,
        valid=error.valid,
        fix="add nodes, or raise scale.wait; rerun the command to resume from the latest checkpoint, if there is one",
    )
