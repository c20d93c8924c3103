"""The places of a search on a cluster that may grow: waited for, counted anew, and asked for while trials wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from raycls.errors import LaunchError
from raycls.launch.cluster import Cluster, nodes
from raycls.launch.demand import Request
from raycls.launch.placement import Nodes, check_device, check_largest, wait_for_nodes
from raycls.launch.search_plan import Search
from raycls.launch.slots import Slots

__all__ = ["Room"]

_NODES_SECONDS = 5.0
"""How often the cluster is asked for its size."""


class Room:
    """How many trials of `plan` may be there at a time. LaunchError where the cluster can never have room for one."""

    def __init__(self, plan: Search, cluster: Cluster, device: str, say: Callable[[str], None]) -> None:
        self.slots = Slots.of(plan.run, device)
        self._plan, self._say, self._grows = plan, say, cluster.grows
        self._nodes: Nodes = cluster.nodes
        check_device(plan.run, device, cluster)
        check_largest(cluster, self._fits)
        self._request = Request(self.slots.bundles(), 1, self._wanted()) if cluster.grows else None
        self._asked = float("-inf")

    @property
    def text(self) -> str:
        """The count and where it comes from, in one line."""
        return self.slots.arithmetic(self._nodes)

    def wait(self, stopped: Callable[[], bool]) -> bool:
        """Wait for nodes that one trial fits on, where the cluster grows; False where `stopped` came first."""
        found = wait_for_nodes(
            self._fits,
            nodes,
            f"{self.slots.text()} for a trial",
            self._plan.run.scale.wait,
            demand=self._request,
            patient=self._grows,
            stopped=stopped,
            say=self._say,
        )
        self._nodes, self._asked = found or self._nodes, time.monotonic()
        return found is not None

    def ask(self, *, confirming: bool = False) -> None:
        """Ask for as many places as there are trials for, where the cluster grows. Cheap, see `Request.renew`."""
        if self._request is not None:
            self._request.want(self._wanted(confirming=confirming))
            self._request.renew()

    def look(self) -> int:
        """Trials that may have begun and not ended, now: the cluster may have grown."""
        if time.monotonic() - self._asked > _NODES_SECONDS:
            self._asked, before = time.monotonic(), self.slots.count(self._nodes)
            self._nodes = nodes()
            if self.slots.count(self._nodes) != before:
                self._say(self.text)
        return self.most()

    def most(self) -> int:
        """Trials at a time on the nodes as they were when last asked."""
        return max(1, self.slots.count(self._nodes))

    def close(self) -> None:
        """Ask for nothing any more."""
        if self._request is not None:
            self._request.close()

    def _wanted(self, *, confirming: bool = False) -> int:
        """Trials that would be there together if there were room: those that have not ended."""
        search, board = self._plan.run.search, self._plan.board
        if confirming:
            left = sum(trial.phase != "search" and not trial.ended for trial in board.ledger.trials.values())
        elif board.has_more:
            left = search.trials - sum(trial.ended for trial in board.searched)
        else:
            left = len(board.running)
        limit = left if isinstance(search.max_concurrent, str) else search.max_concurrent
        return max(1, min(left, limit))

    def _fits(self, nodes: Nodes) -> None:
        """Raise LaunchError where no trial, or not all of a population, could start on `nodes`."""
        self.slots.check(nodes)
        trials, places = self._plan.run.search.trials, self.slots.count(nodes)
        if self._plan.board.population is not None and self.slots.nested and places < trials:
            raise LaunchError(
                "a population of trials with several workers each needs a place for every one of them",
                where="search.trials",
                found=self.slots.arithmetic(nodes),
                valid=f"at most {places} trials",
                fix="lower search.trials, set scale.workers to 1 (such trials take turns), or add nodes",
            )
