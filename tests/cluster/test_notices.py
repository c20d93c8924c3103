"""A cloud's notice becomes a drain: the three metadata servers on loopback, and a real node of Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness.metadata import Metadata

from raycls.cluster import notices
from raycls.cluster.notices import Node, Notice, spot_nodes, watch

EVICTION = {
    "EventId": "1",
    "EventType": "Preempt",
    "EventStatus": "Scheduled",
    "ResourceType": "VirtualMachine",
    "Resources": ["this-machine"],
    "NotBefore": "Fri, 02 Jan 2099 03:04:05 GMT",
}
THEN = 4071006245.0
"""2099-01-02 03:04:05 UTC"""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PAUSE", 0.05)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):  # a proxy would ask for its own machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def rounds(number: int) -> Any:
    """The node is there for so many looks."""
    left = iter(range(number))
    return lambda: next(left, None) is not None


@pytest.mark.parametrize(
    ("cloud", "notice", "deadline"),
    [
        ("aws", {"action": "terminate", "time": "2099-01-02T03:04:05Z"}, THEN),
        ("aws", {"action": "stop"}, 120),
        ("gcp", True, 30),
        ("azure", [EVICTION], THEN),
        ("azure", [{**EVICTION, "NotBefore": "", "EventStatus": "Started"}], 30),
    ],
)
def test_a_notice_drains_once_and_says_when(cloud: str, notice: Any, deadline: float) -> None:
    said: list[str] = []
    drained: list[Notice] = []
    with Metadata(cloud) as server:

        def there() -> bool:
            if len(server.asked) > 4:  # some looks without a notice come first
                server.notice = notice
            return True

        found = watch(cloud, there, drained.append, origin=server.origin, say=said.append)
    assert drained == [found]
    assert found is not None
    expected = deadline if deadline > 1000 else time.time() + deadline
    assert found.deadline == pytest.approx(expected, abs=0 if deadline > 1000 else 10)
    assert len(said) == 1 and said[0].endswith("its node in Ray drains")


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_without_a_notice_nothing_is_drained_or_said_until_the_node_ends(cloud: str) -> None:
    said: list[str] = []
    with Metadata(cloud) as server:
        assert watch(cloud, rounds(5), pytest.fail, origin=server.origin, say=said.append) is None
        assert len(server.asked) == (10 if cloud == "aws" else 5)
    assert said == ["the node has ended, and nothing is left to drain"]


def test_events_of_azure_for_others_or_of_another_kind_do_not_count() -> None:
    events = [{**EVICTION, "Resources": ["another"]}, {**EVICTION, "EventType": "Reboot"}]
    with Metadata("azure", events) as server:
        assert watch("azure", rounds(3), pytest.fail, origin=server.origin, say=lambda text: None) is None


def test_a_server_that_fails_is_asked_again_and_its_trouble_said_once() -> None:
    said: list[str] = []
    drained: list[Notice] = []
    with Metadata("gcp", True, broken=503) as server:

        def there() -> bool:
            server.broken = 503 if len(server.asked) < 5 else 0
            return True

        watch("gcp", there, drained.append, origin=server.origin, say=said.append)
    assert len(drained) == 1
    assert said[0].startswith("no answer that helps, asking again: OSError: HTTP status 503")
    assert len(said) == 2


def test_a_drain_that_fails_is_tried_again_with_the_same_deadline() -> None:
    tried: list[Notice] = []

    def drain(notice: Notice) -> None:
        tried.append(notice)
        if len(tried) < 3:
            raise ConnectionError("the head is away")

    with Metadata("gcp", True) as server:
        watch("gcp", lambda: True, drain, origin=server.origin, say=lambda text: None)
    assert len(tried) == 3 and len({notice.deadline for notice in tried}) == 1


def test_only_spot_nodes_of_this_cluster_are_found(tmp_path: Path) -> None:
    spot, address = '--labels={"ray.io/market-type": "spot"}', "--gcs-address=10.0.0.1:6379"
    command = ["/x/core/src/ray/raylet/raylet", "--log_dir=/logs"]
    processes = {
        "1": [*command, "--node_id=aa", address, spot],
        "2": [*command, "--node_id=bb", address, '--labels={"ray.io/market-type": "on-demand"}'],
        "3": [*command, "--node_id=cc", "--gcs-address=10.0.0.2:6379", spot],
        "4": [*command, "--node_id=dd", address, spot, "--head"],
        "5": [*command, "--node_id=ee", address, "--labels="],
        "6": ["bash", "-c", "raylet/raylet", "--node_id=ff", address, spot],
        "7": [""],
        "self": [*command, "--node_id=gg", address, spot],
    }
    for name, words in processes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    (tmp_path / "8").mkdir()  # it has ended
    found = [Node("aa", "10.0.0.1:6379", "/logs")]
    assert spot_nodes("10.0.0.1:6379", tmp_path) == found
    assert spot_nodes("10.0.0.1:6380", tmp_path) == spot_nodes("10.0.0.3:6379", tmp_path) == []
    # Ray puts an address that others reach in the place of a loopback one
    assert {node.name for node in spot_nodes("127.0.0.1:6379", tmp_path)} == {"aa", "cc"}


def test_waiting_imports_nothing_heavy() -> None:
    code = (
        "import sys; import raycls.cluster.notices; print({'ray', 'torch', 'numpy', 'pyarrow'} & sys.modules.keys())\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmRSS')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, memory = found.stdout.split("\n")[:2]
    assert heavy == "set()"
    assert int(memory.split()[1]) < 60_000  # kB


WAIT = """
import json, time
from raycls.cluster.nodes import draining
from raycls.cluster.environment import prepare_environment
prepare_environment()
import ray
ray.init("auto", logging_level="ERROR", log_to_driver=False)
class Busy:
    def ready(self):
        return True
busy = ray.remote(num_cpus=1)(Busy).remote()  # an idle node would be gone at once
print("busy", ray.get(busy.ready.remote()), flush=True)
end = time.monotonic() + 60
while not draining() and time.monotonic() < end:
    time.sleep(0.1)
from ray._private.state import state
print(json.dumps({name: at / 1000 for name, at in state.get_draining_nodes().items()}))
"""


@pytest.mark.ray
@pytest.mark.nightly
def test_a_node_of_ray_drains_after_the_notice(tmp_path: Path) -> None:
    from harness.clusters import joined, standing, state

    end = int(time.time()) + 300
    action = {"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))}
    spot = "ray.io/market-type=spot"
    with standing(0) as cluster, joined(cluster, 1, name="spot", labels=spot), Metadata("aws") as server:
        variables = {**os.environ, **cluster.environment}
        nodes = state(cluster.environment)["nodes"]
        words = [sys.executable, "-m", "raycls.cluster.notices", "aws", cluster.environment["RAY_ADDRESS"]]
        command = [*words, f"--origin={server.origin}"]
        began = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
        log = Path(began.stdout.strip().rpartition(" ")[2])
        ask = [sys.executable, "-c", WAIT]
        with subprocess.Popen(ask, env=variables, stdout=subprocess.PIPE, text=True) as waiting:
            try:
                assert waiting.stdout is not None and waiting.stdout.readline() == "busy True\n"
                assert server.asked and "drains" not in log.read_text()
                server.notice = action
                found = json.loads(waiting.stdout.readline())
            finally:
                waiting.kill()
        assert found == {nodes["spot"]: float(end)}
        patience = time.monotonic() + 20
        while len(lines := log.read_text().splitlines()) < 2 and time.monotonic() < patience:
            time.sleep(0.1)  # it drains the node, and then says so
        assert len(lines) == 2 and lines[1].endswith("its node in Ray drains"), lines
        assert log.stat().st_mode & 0o777 == 0o600
