"""The nodes of a cluster: which are there and stay, and what Ray Data keeps on one of them."""

from __future__ import annotations

__all__ = ["draining", "nodes", "settle"]


def nodes() -> tuple[dict[str, float], ...]:
    """The resources of each node that is alive now and stays."""
    import ray

    leaving = draining()
    return tuple(dict(node["Resources"]) for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving)


def draining() -> frozenset[str]:
    """Ids of the nodes that had their notice: they are about to be taken away."""
    from ray._private.state import state

    return frozenset(state.get_draining_nodes())


def settle() -> None:
    """Start, on the node of this process, the two actors that Ray Data starts once per cluster and keeps for good.

    It would pin them to the node of the worker that reads first, and a node with an actor never counts as idle:
    a cluster that grew would keep it, and its GPUs, after the run.
    """
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator
    from ray.data._internal.stats import get_or_create_stats_actor

    get_or_create_stats_actor()
    coordinator.get_or_create_autoscaling_coordinator()
