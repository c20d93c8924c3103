"""Tell a cluster how far it may grow, so that a run that needs more than is there waits instead of giving up.

Ray keeps a place for this beside its other books, and its own autoscaler leaves it empty. The head's start commands
of cluster/ run `python -m raycls.launch.growth FILE` once Ray is up.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast

__all__ = ["growth", "report"]


def growth(config: dict[str, Any]) -> dict[str, Any]:
    """What `config`, a cluster file as Ray fills it in, may add to the head: `groups` and `most`, by resource.

    `most` respects `max_workers`, for each resource by itself: the nodes that have most of it count first.
    """
    cap = int(config["max_workers"])
    groups: list[dict[str, Any]] = []
    for name, kind in config["available_node_types"].items():
        if name != config["head_node_type"] and kind["max_workers"] and kind["resources"]:
            most = min(int(kind["max_workers"]), cap)
            groups.append({"name": name, "least": kind["min_workers"], "most": most, "resources": kind["resources"]})
    total: Counter[str] = Counter()
    for resource in {name for group in groups for name in group["resources"]}:
        left = cap
        for group in sorted(groups, key=lambda each: -each["resources"].get(resource, 0)):
            count = min(left, group["most"])
            total[resource] += count * group["resources"].get(resource, 0)
            left -= count
    return {"groups": groups, "most": dict(total)}


def report(config: dict[str, Any], address: str = "127.0.0.1:6379") -> None:
    """Write the growth of `config` into the books of the Ray at `address`; nothing where it does not grow."""
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    found = growth(config)
    if not found["groups"]:
        return
    raylet, books = cast("Any", _raylet), cast("Any", autoscaler_pb2)  # compiled and generated, without type hints
    message = books.ClusterConfig()
    message.max_resources.update(found["most"])
    for group in found["groups"]:
        written = message.node_group_configs.add(name=group["name"], min_count=group["least"], max_count=group["most"])
        written.resources.update(group["resources"])
    raylet.GcsClient(address).report_cluster_config(message.SerializeToString())


if __name__ == "__main__":
    report(json.loads(Path(sys.argv[1]).expanduser().read_text(encoding="utf-8")))
