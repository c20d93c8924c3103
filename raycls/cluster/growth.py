"""Whether a cluster grows, and how far, so that a run that needs more than is there waits instead of giving up.

The GCS of Ray has a field for how far, and Ray's own autoscaler leaves it empty. The head's start commands of cluster/
run `python -m raycls.cluster.growth FILE` once Ray is up. Where that was not run (KubeRay, a cluster that others
started), an autoscaler that reports is seen all the same, and how far remains unknown.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

__all__ = ["Growth", "autoscales", "growth", "read", "refuses", "report"]

_MIRRORED = re.compile(r"node_[0-9a-f]{56}")
"""What Ray's monitor calls a node where it only looks on: on every cluster without an autoscaler."""
_SILENT_SECONDS = 30.0
"""How long the autoscaler of a cluster without a single CPU or GPU may take to report for the first time."""


@dataclass(frozen=True)
class Growth:
    """What the GCS of a cluster says."""

    grows: bool = False
    max_resources: dict[str, float] = field(default_factory=dict[str, float])
    """The maximum of each resource; empty where it is unknown."""
    groups: tuple[tuple[int, dict[str, float]], ...] = ()
    """How many nodes with which resources there may be at most; -1: any number."""


def growth(config: dict[str, Any]) -> dict[str, Any]:
    """What `config`, a cluster file as Ray fills it in, may become with its head: `groups` and `max`, by resource.

    `max` respects `max_workers`, for each resource by itself: the nodes that have most of it count first. Both are
    empty where nothing can be added to the head.
    """
    cap = int(config["max_workers"])
    groups: list[dict[str, Any]] = []
    for name, kind in config["available_node_types"].items():
        if name != config["head_node_type"] and kind["max_workers"] and kind["resources"]:
            most = min(int(kind["max_workers"]), cap)
            groups.append({"name": name, "min": kind["min_workers"], "max": most, "resources": kind["resources"]})
    total: Counter[str] = Counter()
    for resource in {name for group in groups for name in group["resources"]}:
        left = cap
        for group in sorted(groups, key=lambda each: -each["resources"].get(resource, 0)):
            count = min(left, group["max"])
            total[resource] += count * group["resources"].get(resource, 0)
            left -= count
    head = config["available_node_types"][config["head_node_type"]].get("resources") or {}
    if groups and any(head.values()):  # Ray refuses what is more than the sum of the groups
        groups.insert(0, {"name": config["head_node_type"], "min": 1, "max": 1, "resources": head})
        total.update(head)
    return {"groups": groups, "max": dict(total)}


def report(config: dict[str, Any], address: str = "127.0.0.1:6379") -> None:
    """Write the growth of `config` into the GCS of the Ray at `address`; nothing where it does not grow."""
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    found = growth(config)
    if not found["groups"]:
        return
    raylet, generated = cast("Any", _raylet), cast("Any", autoscaler_pb2)  # compiled and generated, without type hints
    message = generated.ClusterConfig()
    message.max_resources.update(found["max"])
    for group in found["groups"]:
        written = message.node_group_configs.add(name=group["name"], min_count=group["min"], max_count=group["max"])
        written.resources.update(group["resources"])
    raylet.GcsClient(address).report_cluster_config(message.SerializeToString())


def read(*, idle: bool) -> Growth:
    """What the GCS of the Ray that this process is connected to says of its growth.

    `idle`: nothing can run on it as it is, so an autoscaler that has just started is waited for.
    """
    from ray._private.state import state

    written: Any = state.get_cluster_config()  # generated, without type hints
    groups = [(int(group.max_count), dict(group.resources)) for group in written.node_group_configs] if written else []
    known = {name: float(count) for name, count in (state.get_max_resources_from_cluster_config() or {}).items()}
    if known:
        return Growth(True, known, tuple((count, each) for count, each in groups if count and each))
    end = time.monotonic() + _SILENT_SECONDS
    while (found := autoscales(*_reports())) is None and idle and time.monotonic() < end:
        time.sleep(1.0)
    return Growth(bool(found))


def autoscales(status: bytes | None, error: bytes | None, reply: Any) -> bool | None:
    """Whether an autoscaler that can add nodes is at work; None where none has reported yet.

    Every Ray has a monitor, which only looks on where it was given no configuration. `status` and `error` are what
    the older one writes: there the types of nodes have names of their own. `reply`, Ray's GetClusterStatusReply, has
    what the newer one writes: it needs nodes that say of which type they are.
    """
    types = [node.ray_node_type_name for node in reply.cluster_resource_state.node_states]
    if reply.autoscaling_state.last_seen_cluster_resource_state_version:
        return any(types)
    report = (json.loads(status) if status else {}).get("autoscaler_report")
    if error or not report:
        return False if error else None
    return any(not _MIRRORED.fullmatch(name) for name in (*report["active_nodes"], *report["pending_launches"]))


def refuses() -> bool:
    """Whether the autoscaler says that it can never add what it was asked for. The older one never says so."""
    _, _, reply = _reports()
    return len(reply.autoscaling_state.infeasible_cluster_resource_constraints) > 0


def _reports() -> tuple[bytes | None, bytes | None, Any]:
    from ray._private import ray_constants, worker
    from ray.core.generated import autoscaler_pb2

    here, generated = cast("Any", worker.global_worker), cast("Any", autoscaler_pb2)
    gcs = here.gcs_client
    reply = generated.GetClusterStatusReply()
    reply.ParseFromString(gcs.get_cluster_status())
    keys = (ray_constants.DEBUG_AUTOSCALING_STATUS, ray_constants.DEBUG_AUTOSCALING_ERROR)
    status, error = (gcs.internal_kv_get(key.encode(), None) for key in keys)
    return status, error, reply


if __name__ == "__main__":
    report(json.loads(Path(sys.argv[1]).expanduser().read_text(encoding="utf-8")))
