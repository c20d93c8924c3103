"""Clusters that nobody of ours started, to be joined by commands under test."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from harness.processes import Command, start
from harness.runs import Foreign
from raycls.cluster.private import guarded

_STATE = """
import json, ray
from ray.util.placement_group import placement_group_table
ray.init("auto", logging_level="ERROR", log_to_driver=False)
groups = {name: group["state"] for name, group in placement_group_table().items()}
nodes = {node["NodeName"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
found = {"available": ray.available_resources(), "total": ray.cluster_resources(), "groups": groups, "nodes": nodes}
print(json.dumps(found))
"""

_NO_MONITOR = "--include-log-monitor=false"
"""Ray's log monitors send what workers print to drivers, which raycls does not ask for. All nodes of a test keep their
logs in one folder, and each monitor reads it all: hundreds of files in a cluster that stands for an hour."""

_EVERY_NODE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "180",  # on a busy machine
    "RAY_num_workers_soft_limit": "64",  # or decoding processes end after each task, where there are few CPUs
    # Under `uv run pytest` Ray's job server would send the folder that it was started in along with every job. Its
    # session lies there, and the package in it: that grows until the disk is full.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@contextmanager
def standing(
    cpus: int,
    *,
    dashboard: bool = False,
    address: str = "127.0.0.1",
    host: str = "127.0.0.1",
    env: dict[str, str] | None = None,
    words: Sequence[str] = (),
) -> Iterator[Foreign]:
    """`ray start --head` as somebody else would have typed it, with a token, on ports of its own.

    `env` is added to its environment and `words` to its command, `host` is where the dashboard listens.
    """
    folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # short: sockets lie below it
    port = _free_port()
    token = secrets.token_hex(32)
    outside = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_TMPDIR": str(folder),
        "RAY_ADDRESS": "",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",  # on a busy machine
        **_EVERY_NODE,
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # jobs find `raycls` there
        **(env or {}),
    }
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", *words]
    words += [f"--node-ip-address={address}"] if address != "127.0.0.1" else []
    words += [f"--num-cpus={cpus}", f"--include-dashboard={str(dashboard).lower()}", f"--temp-dir={folder}"]
    web = _free_port()
    words += [f"--dashboard-port={web}", f"--dashboard-host={host}"]
    words += [f"--ray-client-server-port={_free_port()}", "--dashboard-agent-listen-port=0"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", _NO_MONITOR]
    # The guard is for pytest itself: a time limit ends it without a teardown.
    with guarded(str(folder)), start(words, folder, name="foreign", env=outside) as head:
        head.until(lambda: "Ray runtime started" in head.stdout, 240)
        if dashboard:
            head.until(lambda: _answers(host, web), 120)
        environment = {"RAY_ADDRESS": f"{address}:{port}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        yield Foreign(head, environment, f"http://{host}:{web}" if dashboard else "", folder)
        head.kill_all()  # it would drain for half a minute
        head.assert_gone(10)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def joined(
    cluster: Foreign, cpus: int, *, name: str = "", address: str = "", labels: str = "", inside: Sequence[str] = ()
) -> Iterator[Command]:
    """One more node of a standing cluster, in processes of its own. `inside` goes before its command."""
    folder = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    outside = {**cluster.environment, "RAY_TMPDIR": str(folder), "HOME": str(folder), **_EVERY_NODE}
    outside["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [*inside, str(Path(sys.executable).with_name("ray")), "start", "--block", f"--num-cpus={cpus}"]
    words += [f"--node-name={name}"] if name else []
    words += [f"--node-ip-address={address}"] if address else []
    words += [f"--labels={labels}"] if labels else []
    words += [f"--address={cluster.environment['RAY_ADDRESS']}", "--dashboard-agent-listen-port=0"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", _NO_MONITOR]
    outside["RAY_ADDRESS"] = ""
    with start(words, folder, name="node", env=outside) as node:
        node.until(lambda: "Ray runtime started" in node.stdout, 240)
        yield node
        node.kill_all()
        node.assert_gone(10)
    shutil.rmtree(folder, ignore_errors=True)


def notify(environment: dict[str, str], node: str, seconds: int) -> None:
    """Tell the node of that id that it is taken back, as a cloud would, with that much time left."""
    words = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", environment["RAY_ADDRESS"]]
    words += ["--node-id", node, "--deadline-remaining-seconds", str(seconds)]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
    variables = {**os.environ, **environment}
    subprocess.run(words, env=variables, check=True, capture_output=True, timeout=120)


def state(environment: dict[str, str]) -> dict[str, Any]:
    """What a cluster has: `available` and `total` resources, `groups` (placement groups) with their states, and the
    `nodes` that are alive: their ids by name."""
    variables = {**os.environ, **environment}
    command = [sys.executable, "-c", _STATE]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _answers(host: str, port: int) -> bool:
    try:
        with urlopen(f"http://{host}:{port}/api/authentication_mode", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        time.sleep(0.5)
        return False


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
