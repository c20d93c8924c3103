"""One process on every node that answers questions, each with a deadline: a frozen node is a fact, not a wait."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycls.doctor import node_probes
from raycls.doctor.cluster_rows import Unanswered
from raycls.launch.node_checks import is_preemptible

__all__ = ["Examiners", "Node", "all_nodes", "described"]

_ROUND_TRIPS = 10


@dataclass(frozen=True)
class Node:
    """A node of the cluster. `name` is its address, with a part of its id where several share one."""

    id: str
    name: str
    address: str
    resources: Mapping[str, float]
    alive: bool
    preemptible: bool
    death: int
    """Ray's `DeathReason`; 0 of a node that lives."""


def all_nodes() -> list[Node]:
    """Every node that Ray knows, dead ones included; the driver's first."""
    here = ray.get_runtime_context().get_node_id()
    found = sorted(ray.nodes(), key=lambda node: (node["NodeID"] != here, node["NodeManagerAddress"], node["NodeID"]))
    shared = Counter(node["NodeManagerAddress"] for node in found if node["Alive"])
    return [
        Node(
            id=node["NodeID"],
            name=node["NodeManagerAddress"]
            + (f"#{node['NodeID'][:6]}" if shared[node["NodeManagerAddress"]] > 1 else ""),
            address=node["NodeManagerAddress"],
            resources=dict(node["Resources"]),
            alive=bool(node["Alive"]),
            preemptible=is_preemptible(node),
            death=int(node.get("DeathReason") or 0),
        )
        for node in found
    ]


class Examiners:
    """A context manager: the processes are gone when it is left. A node that was silent once is asked no more."""

    def __init__(self, nodes: Sequence[Node], seconds: float) -> None:
        self.seconds = seconds
        self.nodes = list(nodes)
        self._actors: dict[str, Any] = {}
        self._silent: dict[str, Unanswered] = {}

    def __enter__(self) -> Self:
        # Sent whole: a node whose raycls is missing, or is another, can still answer.
        cloudpickle.register_pickle_by_value(node_probes)
        for node in self.nodes:
            self._actors[node.name] = self._actor(node, max_concurrency=8)
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors.values():
            with suppress(RayError, ValueError):
                ray.kill(actor)
        cloudpickle.unregister_pickle_by_value(node_probes)

    @property
    def answering(self) -> list[Node]:
        return [node for node in self.nodes if node.name not in self._silent]

    def ask(self, function: Any, *arguments: Any, seconds: float | None = None) -> dict[str, Any]:
        """What `function(*arguments)` returns on each node, or `Unanswered`."""
        return self.ask_each({node.name: (function, *arguments) for node in self.nodes}, seconds=seconds)

    def ask_each(self, questions: Mapping[str, Sequence[Any]], *, seconds: float | None = None) -> dict[str, Any]:
        """Each node's own question, `(function, *arguments)`; all at the same time."""
        limit = self.seconds if seconds is None else seconds
        asked = {
            name: self._actors[name].ask.remote(*words) for name, words in questions.items() if name not in self._silent
        }
        done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=limit) if asked else ([], [])
        answers: dict[str, Any] = {}
        for name in questions:
            if name in self._silent:
                answers[name] = self._silent[name]
            elif asked[name] in done:
                answers[name] = _answer(asked[name])
            else:
                answers[name] = Unanswered(f"does not answer within {limit:g} s")
        return answers

    def first(self) -> dict[str, Any]:
        """Whether each node answers at all; one that does not is asked no more."""
        answers = self.ask(node_probes.clock)
        self._silent = {
            name: Unanswered("is silent") for name, given in answers.items() if isinstance(given, Unanswered)
        }
        return answers

    def clocks(self) -> dict[str, Any]:
        """The clock of each node against this process's, from the quickest of some round trips.

        By node: `offset` and `uncertainty` in seconds, and `n` round trips.
        """
        answers: dict[str, Any] = {}
        for node in self.nodes:
            best: dict[str, Any] | Unanswered | None = None
            for trip in range(_ROUND_TRIPS):
                before, began = time.time(), time.perf_counter()
                there = self.ask_each({node.name: (node_probes.clock,)})[node.name]
                half = (time.perf_counter() - began) / 2
                if isinstance(there, Unanswered):
                    best = there
                    break
                if not isinstance(best, dict) or half < best["uncertainty"]:
                    best = {"offset": there - before - half, "uncertainty": half, "n": trip + 1}
            if isinstance(best, dict):
                best["n"] = _ROUND_TRIPS
            answers[node.name] = best
        return answers

    def alone(self, node: Node, function: Any, *arguments: Any, gpus: float = 0.0, seconds: float) -> Any:
        """`function` in a process of its own on `node`, which is ended at the deadline."""
        actor = self._actor(node, num_gpus=gpus)
        try:
            asked = actor.ask.remote(function, *arguments)
            done, _ = ray.wait([asked], timeout=seconds)
            return _answer(asked) if done else Unanswered(f"{node.name} did not finish within {seconds:g} s")
        finally:
            with suppress(RayError, ValueError):
                ray.kill(actor)

    @staticmethod
    def _actor(node: Node, **options: Any) -> Any:
        place = NodeAffinitySchedulingStrategy(node.id, soft=False)
        examiner: Any = ray.remote(node_probes.Examiner)
        return examiner.options(num_cpus=0, scheduling_strategy=place, **options).remote()


def _answer(asked: Any) -> Any:
    try:
        return ray.get(asked, timeout=10)
    except (ActorDiedError, ActorUnavailableError) as error:
        return Unanswered(f"was lost, or its process was: {type(error).__name__}")
    except RayError as error:
        return Unanswered(described(error))


def described(error: BaseException) -> str:
    """An error of Ray's, or one that it carries, in one line."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return f"failed: {type(cause).__name__}: {last}"[:300]
