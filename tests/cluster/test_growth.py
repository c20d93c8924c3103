"""What a cluster may grow to, by hand and through the books of a Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raycls.cluster.growth import autoscales, growth

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
    assert found["max"] == {"CPU": 5 * 16, "GPU": 4 * 2}
    assert [(group["name"], group["min"], group["max"]) for group in found["groups"]] == [
        ("gpu", 1, 4),
        ("cpu", 0, 5),
    ]


def test_growth_counts_what_the_head_has() -> None:
    """A head with GPUs and workers without: Ray refuses whatever is more than the sum of what it was told."""
    kinds: dict[str, Any] = {
        "head": {"min_workers": 0, "max_workers": 0, "resources": {"CPU": 8, "GPU": 2}},
        "cpu": {"min_workers": 0, "max_workers": 4, "resources": {"CPU": 16}},
    }
    found = growth({"max_workers": 3, "head_node_type": "head", "available_node_types": kinds})
    assert found["max"] == {"CPU": 3 * 16 + 8, "GPU": 2}
    groups = [(group["name"], group["min"], group["max"], group["resources"]) for group in found["groups"]]
    assert groups == [("head", 1, 1, {"CPU": 8, "GPU": 2}), ("cpu", 0, 3, {"CPU": 16})]


def status(*active: str, launching: str = "") -> bytes:
    """What Ray's older monitor writes."""
    nodes = dict.fromkeys(active, 1)
    return json.dumps({"autoscaler_report": {"active_nodes": nodes, "pending_launches": {launching: 1}}}).encode()


def reply(*types: str, seen: int = 0) -> Any:
    """What Ray answers of the newer one, which has `seen` the cluster so many times."""
    from ray.core.generated import autoscaler_pb2

    made = autoscaler_pb2.GetClusterStatusReply()  # pyright: ignore[reportAttributeAccessIssue]
    made.autoscaling_state.last_seen_cluster_resource_state_version = seen
    for name in types:
        made.cluster_resource_state.node_states.add(ray_node_type_name=name)
    return made


MIRRORED = "node_" + "e8" * 28


def test_an_autoscaler_is_told_from_a_monitor_that_looks_on() -> None:
    assert autoscales(None, None, reply("")) is None  # nobody has reported yet
    assert autoscales(b'{"autoscaler_report": null}', None, reply("")) is None
    assert autoscales(status(MIRRORED, launching=MIRRORED), None, reply("")) is False
    assert autoscales(status("headgroup", launching="gpu"), None, reply("")) is True
    assert autoscales(status(MIRRORED, launching="gpu"), None, reply("")) is True
    assert autoscales(status("headgroup", launching="gpu"), b"it fell over", reply("")) is False
    assert autoscales(None, None, reply("", "", seen=9)) is False
    assert autoscales(None, None, reply("headgroup", seen=9)) is True
    assert autoscales(None, None, reply("headgroup")) is None  # KubeRay's, which has just started


def test_machines_of_one_s_own_do_not_grow() -> None:
    kind = {"min_workers": 2, "max_workers": 2, "resources": {}}
    config = {"max_workers": 2, "head_node_type": "node", "available_node_types": {"node": kind}}
    assert growth(config) == {"groups": [], "max": {}}


@pytest.mark.ray
@pytest.mark.nightly
def test_a_ray_that_was_told_says_what_it_may_grow_to() -> None:
    """Through the one function that asks: what `raycls train` sees when it joins the cluster."""
    from harness.clusters import standing

    ask = "import json; from raycls.cluster.connection import running_cluster\n"
    ask += "with running_cluster() as cluster: print(json.dumps([cluster.grows, cluster.growth.max_resources]))"
    with standing(1) as cluster:

        def python(text: str) -> str:
            words, variables = [sys.executable, "-c", text], {**os.environ, **cluster.environment}
            done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=120, check=True)
            return done.stdout.strip()

        assert json.loads(python(ask)) == [False, {}]
        address = cluster.environment["RAY_ADDRESS"]
        python(f"from raycls.cluster.growth import report; report({CONFIG!r}, {address!r})")
        assert json.loads(python(ask)) == [True, {"CPU": 80.0, "GPU": 8.0}]
        # what Ray Data keeps for good is on the node of the driver that joined, not on one that should go again
        assert json.loads(python(KEPT)) == {"_AutoscalingCoordinatorActor": True, "_StatsActor": True}


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.parametrize("newer", [False, True])
def test_a_cluster_that_nobody_told_grows_where_an_autoscaler_reports(newer: bool, tmp_path: Path) -> None:
    """As on KubeRay, which tells nothing and gives every node of the newer autoscaler the name of its type."""
    from harness.clusters import standing
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    from raycls.cluster.files.read import read

    file = read(Path(__file__).parents[2] / "cluster" / "local-autoscaling.yaml")
    (tmp_path / "foreign.json").write_text(json.dumps(file.resolved))
    env = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": str(int(newer))}
    env |= {"RAY_NODE_TYPE_NAME": "ray.head.default", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID} if newer else {}
    ask = "import json; from raycls.cluster.connection import running_cluster\n"
    ask += "with running_cluster() as cluster: print(json.dumps([cluster.grows, cluster.growth.max_resources]))"
    with standing(0, env=env, words=[f"--autoscaling-config={tmp_path / 'foreign.json'}"]) as cluster:
        variables = {**os.environ, **cluster.environment}
        done = subprocess.run([sys.executable, "-c", ask], env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [True, {}]
