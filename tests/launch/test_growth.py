"""What a cluster may grow to, by hand and through the books of a Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from raycls.launch.growth import growth

CONFIG: dict[str, Any] = {
    "max_workers": 5,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"min_workers": 0, "max_workers": 0, "resources": {"CPU": 0}},
        "gpu": {"min_workers": 1, "max_workers": 4, "resources": {"CPU": 8, "GPU": 2}},
        "cpu": {"min_workers": 0, "max_workers": 9, "resources": {"CPU": 16}},
        "off": {"min_workers": 0, "max_workers": 0, "resources": {"CPU": 64}},
    },
}

KEPT = """
import json, ray
ray.init("auto", logging_level="ERROR", log_to_driver=False)
here = ray.get_runtime_context().get_node_id()
actors = [actor for actor in ray._private.state.actors().values() if actor["State"] != "DEAD"]
print(json.dumps({actor["ActorClassName"]: actor["Address"]["NodeID"] == here for actor in actors}))
"""


def test_growth_counts_the_nodes_with_most_of_each_resource_first() -> None:
    found = growth(CONFIG)
    assert found["most"] == {"CPU": 5 * 16, "GPU": 4 * 2}
    assert [(group["name"], group["least"], group["most"]) for group in found["groups"]] == [
        ("gpu", 1, 4),
        ("cpu", 0, 5),
    ]


def test_machines_of_one_s_own_do_not_grow() -> None:
    kind = {"min_workers": 2, "max_workers": 2, "resources": {}}
    config = {"max_workers": 2, "head_node_type": "node", "available_node_types": {"node": kind}}
    assert growth(config) == {"groups": [], "most": {}}


@pytest.mark.ray
def test_a_ray_that_was_told_says_what_it_may_grow_to() -> None:
    """Through the one function that asks: what `raycls train` sees when it joins the cluster."""
    from harness.clusters import standing

    ask = "import json; from raycls.launch.cluster import running_cluster\n"
    ask += "with running_cluster() as cluster: print(json.dumps([cluster.grows, cluster.most]))"
    with standing(1) as cluster:

        def python(text: str) -> str:
            words, variables = [sys.executable, "-c", text], {**os.environ, **cluster.environment}
            done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=120, check=True)
            return done.stdout.strip()

        assert json.loads(python(ask)) == [False, {}]
        address = cluster.environment["RAY_ADDRESS"]
        python(f"from raycls.launch.growth import report; report({CONFIG!r}, {address!r})")
        assert json.loads(python(ask)) == [True, {"CPU": 80.0, "GPU": 8.0}]
        # what Ray Data keeps for good is on the node of the driver that joined, not on one that should go again
        assert json.loads(python(KEPT)) == {"_AutoscalingCoordinatorActor": True, "_StatsActor": True}
