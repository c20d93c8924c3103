"""A run whose workers join and leave: in the end it is the run that never changed size."""

from __future__ import annotations

import pytest
from harness.clusters import joined, standing, state
from harness.runs import Site

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.nightly]


@pytest.mark.timeout(1200)
def test_one_three_two_workers(site: Site) -> None:
    """Two nodes join a cluster of one, then one of them is killed: the bits and the ledger of the reference."""
    name = "elastic"
    long = "train.duration=20ep"
    with site.raycls("train", "small.yaml", "run.name=steady", "scale.workers=0", long) as command:
        assert command.wait(200) == 0, command.said()
    words = ("train", "small.yaml", long, f"run.name={name}", "scale.workers=[1, 3]", "scale.resize_every=2s")
    site.slow(True)
    with standing(1) as cluster, site.raycls(*words, env=cluster.environment) as command:
        command.until(lambda: site.step(name) >= 3, 300)
        with joined(cluster, 1), joined(cluster, 1) as node:
            command.until(lambda: site.attempts(name)[-1]["workers"] == 3, 300)
            reached = site.attempts(name)[-1]["step"]
            command.until(lambda: site.step(name) >= reached + 4, 300)
            node.kill_all()
            command.until(lambda: site.attempts(name)[-1]["workers"] == 2, 300)
            site.slow(False)
            assert command.wait(300) == 0, command.said()
        sizes = [attempt["workers"] for attempt in site.attempts(name)]
        assert (sizes[0], sizes[-1]) == (1, 2) and 3 in sizes
        assert "the cluster has changed its size; resuming from step" in command.stdout
        assert "workers were lost" in command.stdout
        assert set(state(cluster.environment)["groups"].values()) <= {"REMOVED"}
    site.assert_same(name, "steady")
    with site.raycls("ledger", name) as check:
        assert check.wait(60) == 0, check.said()
        assert check.stdout.startswith("exact: 320 steps, 20 whole epochs of 1003 samples")
