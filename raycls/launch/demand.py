"""What a cluster that grows is asked for, again and again, until it is there."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from raycls.launch.growth import refuses

__all__ = ["Request"]

_RENEW_SECONDS, _FORGET_SECONDS = 20.0, 90.0
_ANSWER_SECONDS = 15.0
"""How long an autoscaler, which looks every five seconds, takes to say that something is too much."""

Bundles = Sequence[Mapping[str, float]]
"""What is to be on one node each."""


class Request:
    """Tells a cluster that can grow how large it is to be: so many times `unit`, `least` at least and `most` at most,
    and `beside` it.

    Through the actor that Ray Train and Ray Data use for that: it adds up what all of them ask for, and forgets a
    request that is not renewed. With `ray.autoscaler.sdk.request_resources` the nodes of a driver that was killed would
    stay for ever. Ray's newer autoscaler adds nothing at all where it could not add everything: then less is asked for.
    """

    def __init__(self, unit: Bundles, least: int, most: int, beside: Bundles = ()) -> None:
        self._unit, self._beside, self._least, self._most = list(unit), list(beside), least, most
        self._count, self._granted, self._refused = most, 0, sys.maxsize
        self._name = f"raycls-{uuid4().hex}"
        self._asked = self._changed = float("-inf")
        self._coordinator: Any = None

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What is asked for now."""
        return [dict(bundle) for bundle in (*self._unit * self._count, *self._beside)]

    def want(self, most: int) -> None:
        """Ask for so many units from now on."""
        if most != self._most:
            self._most = most
            self._count = max(self._least, most if self._refused == sys.maxsize else min(most, self._count))
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
        """Come closer to the most that the cluster can add."""
        before = self._count
        if refused:
            self._refused, self._granted = min(self._refused, before), min(self._granted, before - 1)
            self._count = max(self._least, (self._granted + before) // 2)
        elif before < (ceiling := min(self._most, self._refused - 1)):
            self._granted = before
            self._count = (before + ceiling + 1) // 2
        if self._count != before:
            self._asked = float("-inf")

    def close(self) -> None:
        """Ask for nothing any more, until the next `renew`."""
        if self._coordinator is not None:
            self._coordinator.cancel_request.remote(requester_id=self._name)
            self._asked = float("-inf")
