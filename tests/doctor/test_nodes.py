"""Questions to a node that hangs, raises or dies: each has an answer in time, and the next question is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from harness.processes import start

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

_SCRIPT = """
import json, os, signal, time
from raycls.cluster.connection import running_cluster

def stop(number):
    os.kill(os.getpid(), number)

def places():
    import ray
    return [os.getpid(), os.getppid(), ray.get_runtime_context().get_node_id()]

with running_cluster():
    from raycls.doctor.nodes import Examined, all_nodes
    (node,) = all_nodes()
    examined = Examined([node], 60.0)
    def said(answers):
        print(json.dumps(getattr(answers[node.name], "why", answers[node.name])), flush=True)
    def ask(function, *words, seconds=60.0, **options):
        return examined.ask_each({node.name: (function, *words)}, seconds=seconds, **options)
    said(examined.first())
    began = time.monotonic()
    said(ask(lambda: time.sleep(600), seconds=2.0))
    print(json.dumps(time.monotonic() - began < 30), flush=True)
    said(ask(lambda: os.listdir("/absent")))
    said(ask(stop, signal.SIGSTOP, seconds=2.0))
    said(ask(stop, signal.SIGKILL))
    first, again = (ask(places, max_calls=1)[node.name] for _ in range(2))
    print(json.dumps([first[0] != again[0], first[2] == again[2] == node.id]), flush=True)
    examined.seconds = 0.0
    print(json.dumps(type(examined.first()[node.name]).__name__), flush=True)
    examined.seconds = 60.0
    said(examined.ask(places))
    print(json.dumps(len(examined.answering)), flush=True)
"""


def test_a_node_that_hangs_raises_freezes_and_dies(tmp_path: Path) -> None:
    environment = {"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": ""}
    with start([sys.executable, "-c", _SCRIPT], tmp_path, env=environment) as command:
        assert command.wait(250) == 0, command.said()
        command.assert_gone(10)
        assert not command.leftovers()
    packages, hung, in_time, raised, frozen, dead, own, late, silent, answering = map(
        json.loads, command.stdout.splitlines()
    )
    assert packages["python"] == ".".join(map(str, sys.version_info[:3]))
    assert hung == frozen == "does not answer within 2 s"
    assert in_time is True
    assert raised.startswith("failed: FileNotFoundError")
    assert "was lost" in dead
    assert own == [True, True]  # a process of its own, on that node
    assert (late, silent, answering) == ("Unanswered", "is silent", 0)
