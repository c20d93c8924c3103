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
with running_cluster():
    from raycls.doctor import node_probes
    from raycls.doctor.node_actors import Examiners, all_nodes
    (node,) = all_nodes()
    def said(answers):
        print(json.dumps(getattr(answers[node.name], "why", answers[node.name])), flush=True)
    with Examiners([node], 60.0) as examiners:
        said({node.name: type(examiners.first()[node.name]).__name__})
        began = time.monotonic()
        said(examiners.ask(time.sleep, 600, seconds=2.0))
        print(json.dumps(time.monotonic() - began < 30), flush=True)
        said(examiners.ask(os.listdir, "/absent"))
        said(examiners.clocks())
        pid = examiners.ask(os.getpid)[node.name]
        os.kill(pid, signal.SIGSTOP)
        said(examiners.ask(probes.installed, seconds=2.0))
        os.kill(pid, signal.SIGKILL)
        said(examiners.ask(probes.installed))
        facts = examiners.alone(node, time.sleep, 600, seconds=2.0)
        print(json.dumps(facts.why), flush=True)
"""


def test_a_node_that_hangs_raises_freezes_and_dies(tmp_path: Path) -> None:
    environment = {"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": ""}
    with start([sys.executable, "-c", _SCRIPT], tmp_path, env=environment) as command:
        assert command.wait(250) == 0, command.said()
        command.assert_gone(10)
        assert not command.leftovers()
    alive, hung, in_time, raised, clock, frozen, dead, alone = map(json.loads, command.stdout.splitlines())
    assert alive == "float"
    assert hung == frozen == "does not answer within 2 s"
    assert in_time is True
    assert raised.startswith("failed: FileNotFoundError")
    assert clock["n"] == 10
    assert abs(clock["offset"]) <= clock["uncertainty"] + 0.001  # the same clock
    assert "was lost" in dead
    assert "did not finish within 2 s" in alone
