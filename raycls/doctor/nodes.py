"""The nodes of a cluster as the doctor asks them: those that were silent once are asked no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle

from raycls.cluster.ask import Unanswered, ask
from raycls.doctor import node_probes
from raycls.run import versions

__all__ = ["Examined", "Node", "all_nodes"]

for _module in (node_probes, versions):  # sent whole: a node whose raycls is missing, or is another, can still answer
    cloudpickle.register_pickle_by_value(_module)


@dataclass(frozen=True)
class Node:
    """A node of the cluster. `name` is its address, with a part of its id where several share one."""

    id: str
    name: str
    address: str
    resources: Mapping[str, float]
    alive: bool
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
            death=int(node.get("DeathReason") or 0),
        )
        for node in found
    ]


class Examined:
    """Nodes to be asked, by their names; `seconds` is the deadline of an answer."""

    def __init__(self, nodes: Sequence[Node], seconds: float) -> None:
        self.seconds = seconds
        self.nodes = list(nodes)
        self._silent: dict[str, Unanswered] = {}

    @property
    def answering(self) -> list[Node]:
        return [node for node in self.nodes if node.name not in self._silent]

    def first(self) -> dict[str, Any]:
        """The packages of each node, as `versions.installed` tells them; one that does not answer is asked no more."""
        answers = self.ask(versions.installed)
        self._silent = {
            name: Unanswered("is silent") for name, given in answers.items() if isinstance(given, Unanswered)
        }
        return answers

    def ask(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """What `function(*arguments)` returns on each node, or `Unanswered`."""
        return self.ask_each({node.name: (function, *arguments) for node in self.nodes})

    def ask_each(
        self, questions: Mapping[str, Sequence[Any]], *, seconds: float | None = None, **options: Any
    ) -> dict[str, Any]:
        """Each node's own question, `(function, *arguments)`; all at the same time. See `ask`."""
        ids = {node.name: node.id for node in self.answering}
        told = {ids[name]: question for name, question in questions.items() if name in ids}
        answers = ask(told, self.seconds if seconds is None else seconds, **options)
        return {name: answers[ids[name]] if name in ids else self._silent[name] for name in questions}
