"""cluster/local-autoscaling.yaml as it stands: no worker, two, none again, for a run and for a search."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import hosts as namespaces
from harness.hosts import Host
from harness.jobs import weights
from harness.laptops import ENVIRONMENT, REPOSITORY, make_laptop, write_token
from harness.processes import raycls

pytestmark = [pytest.mark.hosts, pytest.mark.nightly, pytest.mark.ray, pytest.mark.timeout(1800)]

FILE = "cluster/local-autoscaling.yaml"

NODES = """
import json
from ray._raylet import GcsClient
nodes = GcsClient("127.0.0.1:6379").get_all_node_info().values()  # no driver, which would keep a node busy
print(json.dumps([[node.resources_total.get("CPU", 0), dict(node.labels)] for node in nodes if node.state == 0]))
"""

WATCH = """
import json, select, sys
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply
books = GcsClient("127.0.0.1:6379")
while not select.select([sys.stdin], [], [], 0.25)[0]:
    reply = GetClusterResourceStateReply()
    reply.ParseFromString(books.get_cluster_resource_state())
    nodes = [node for node in reply.cluster_resource_state.node_states if node.total_resources.get("CPU")]
    alive = [node for node in nodes if node.status != 2]  # 2: dead
    taken = [node.total_resources["CPU"] - node.available_resources.get("CPU", 0) for node in alive]
    print(json.dumps(sorted(round(count, 2) for count in taken)), flush=True)
"""
"""One line for each look, until its input ends: how many CPUs of each worker are taken."""

SEARCH = """
extends: digits.yaml
run: {name: search}
scale: {workers: 1}
train: {duration: 1ep}
schedule: {warmup: 2st}  # one epoch, as in the file, would be the whole run
search: {trials: 4, scheduler: {name: none}, space: {optim.lr: [0.01, 0.02, 0.05, 0.1]}}
"""

JOINED = {**ENVIRONMENT, "RAY_ADDRESS": "127.0.0.1:6379"}
ACTORS = f"RAY_AUTH_MODE=token {ENVIRONMENT['PATH'].split(':')[0]}/ray list actors --detail"


@pytest.fixture
def machine() -> Iterator[Host]:
    """One host: what runs on it cannot be confused with another Ray of this machine."""
    if missing := namespaces.missing():
        pytest.skip(missing)
    with namespaces.standing(1) as hosts:
        write_token(make_laptop(hosts, 1))
        yield hosts[1]


def nodes(machine: Host) -> list[tuple[float, dict[str, str]]]:
    environment = {**ENVIRONMENT, "RAY_AUTH_MODE": "token"}
    said = machine.run("python", "-c", NODES, env=environment, seconds=200).stdout
    return [(cpus, labels) for cpus, labels in json.loads(said.splitlines()[-1])]


class Watched:
    """The workers of the cluster, looked at four times a second for the length of the block."""

    def __init__(self, machine: Host) -> None:
        self._machine = machine
        self.seen: list[list[float]] = []

    def __enter__(self) -> Watched:
        words = self._machine.words("python", "-c", WATCH, env={**ENVIRONMENT, "RAY_AUTH_MODE": "token"})
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.seen.append(json.loads(self._process.stdout.readline()))
        self._thread = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._thread.start()
        return self

    def _read(self, lines: Iterator[str]) -> None:
        self.seen += (json.loads(line) for line in lines)

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # a signal would end nsenter alone
        assert self._process.wait(60) == 0
        self._thread.join(10)
        self._process.stdout.close()

    @property
    def counts(self) -> list[int]:
        """How many workers there were, one entry for each change."""
        return [count for count, _ in itertools.groupby(len(taken) for taken in self.seen)]


def until_the_head_is_alone(machine: Host) -> None:
    began = time.monotonic()
    while len(found := nodes(machine)) > 1:
        assert time.monotonic() - began < 240, (found, machine.shell(ACTORS).stdout)
        time.sleep(2)
    print(f"the head alone again after {time.monotonic() - began:.0f} s")


def test_nodes_come_for_a_run_and_go_after_it(machine: Host, tmp_path: Path) -> None:
    def command(*words: str, check: bool = True) -> str:
        return machine.run(*words, env=ENVIRONMENT, folder=str(REPOSITORY), seconds=420, check=check).stdout

    assert "at most           3 nodes" in command("raycls", "cluster", "up", FILE, "--yes")
    assert [cpus for cpus, _ in nodes(machine)] == [0]  # the head alone
    again = machine.run("raycls", "cluster", "up", FILE, "--yes", env=ENVIRONMENT, folder=str(REPOSITORY), check=False)
    assert (again.returncode, again.stderr.splitlines()[0]) == (1, "raycls: this cluster runs already")

    work = machine.state / "home" / "work"
    work.mkdir()
    (work / "digits.yaml").write_text((REPOSITORY / "configs" / "digits.yaml").read_text())
    # Two workers of a whole CPU fit one node of two CPUs, and leave none to decode with: a second node comes for that.
    words = ["raycls", "train", "digits.yaml", "scale.workers=2", "scale.cpus_per_worker=1", "train.duration=3ep"]
    began = time.monotonic()
    with Watched(machine) as watched:
        said = machine.run(*words, env=JOINED, folder="/root/work", seconds=900).stdout
    print(said)
    print(f"from no worker to the end of the run: {time.monotonic() - began:.0f} s; workers seen: {watched.counts}")
    assert "waiting up to" in said
    assert "for nodes with 2 x" in said
    assert "workers    2 on Ray" in said
    assert watched.counts[0] == 0 and max(watched.counts) == 2
    assert max(max(taken, default=0) for taken in watched.seen) >= 1.9  # a training worker, and a task that decodes
    until_the_head_is_alone(machine)

    (work / "search.yaml").write_text(SEARCH)
    began = time.monotonic()
    with Watched(machine) as watched:
        said = machine.run("raycls", "search", "search.yaml", env=JOINED, folder="/root/work", seconds=900).stdout
    print(said)
    print(f"from no worker to the end of the search: {time.monotonic() - began:.0f} s; workers seen: {watched.counts}")
    assert "waiting up to 15m for nodes with 1 x (1 CPUs) for a trial; nodes: 1 x (0 CPUs)" in said
    assert watched.counts[0] == 0 and max(watched.counts) == 2  # one to begin with, one for trials that wait
    words = ["raycls", "eval", "runs/digits", "scale.cpus_per_worker=1"]
    assert "top1" in machine.run(*words, env=JOINED, folder="/root/work", seconds=420).stdout
    until_the_head_is_alone(machine)

    overrides = ("scale.workers=0", "train.duration=3ep")
    with raycls(tmp_path, "train", str(REPOSITORY / "configs" / "digits.yaml"), *overrides) as local:
        assert local.wait(420) == 0, local.said()
    assert weights(machine.state / "home" / "work" / "runs" / "digits") == weights(tmp_path / "runs" / "digits")

    command("raycls", "cluster", "down", FILE, "--yes")
    assert machine.processes() == []
