"""How many workers a cluster has room for, and the wait for nodes, on made-up clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from raycls.config.load import load_text
from raycls.config.schema import Run
from raycls.errors import LaunchError
from raycls.launch import placement
from raycls.launch.placement import check_fit, group_size, wait_for_room


def run_of(*overrides: str) -> Run:
    base = ("data.source.name=digits", "data.executor=inline")
    return load_text("", "run.yaml", [*base, *overrides]).run


def cpus(*counts: float) -> list[dict[str, float]]:
    return [{"CPU": float(count)} for count in counts]


ELASTIC = "scale.workers=[1, 4]"


@pytest.mark.parametrize(
    ("options", "nodes", "device", "size"),
    [
        (["scale.workers=2"], cpus(64), "cpu", 2),  # a fixed number stays what it is
        ([ELASTIC], cpus(1), "cpu", 1),
        ([ELASTIC], cpus(1, 2), "cpu", 3),
        ([ELASTIC], cpus(64), "cpu", 4),  # never more than the most
        ([ELASTIC, "scale.threads=2"], cpus(3, 3), "cpu", 2),  # a worker does not share a core with another one
        ([ELASTIC], cpus(0.5), "cpu", 1),  # and never fewer than the least
        ([ELASTIC], cpus(0, 0, 2), "cpu", 2),  # a head without CPUs trains nothing
        ([ELASTIC], [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 32.0}], "cuda", 3),
        (["scale.workers=[2, 4]"], [{"CPU": 8.0, "GPU": 1.0}], "cuda", 2),
        # Four workers of a whole CPU on four CPUs: decoding needs one of them.
        ([ELASTIC, "scale.cpus_per_worker=1", "data.executor=ray"], cpus(4), "cpu", 3),
        # Spread over two nodes of two CPUs, three workers of one leave no node with 0.91, wherever they are.
        ([ELASTIC, "scale.cpus_per_worker=1", "data.executor=ray"], cpus(2, 2), "cpu", 3),
        ([ELASTIC, "scale.cpus_per_worker=1.5", "data.executor=ray"], cpus(2, 2), "cpu", 1),
    ],
)
def test_size(options: list[str], nodes: list[dict[str, float]], device: str, size: int) -> None:
    assert group_size(run_of(*options), nodes, device) == size


def test_an_elastic_run_needs_room_for_its_least() -> None:
    run = run_of("scale.workers=[2, 4]")
    check_fit(run, [{"CPU": 8.0, "GPU": 2.0}], "cuda", "inline")
    with pytest.raises(LaunchError, match="does not fit"):
        check_fit(run, [{"CPU": 8.0, "GPU": 1.0}], "cuda", "inline")


def test_workers_that_are_spread_may_leave_no_node_that_decodes() -> None:
    """Seven of 0.5 CPUs on each of two nodes of 4: packed they would leave 1 CPU, spread 0.5 on both."""
    run = run_of("scale.workers=14", "train.micro_batches=14", "scale.cpus_per_worker=0.5")
    with pytest.raises(LaunchError) as refused:
        check_fit(run, cpus(4, 4), "cpu", "ray")
    assert "spread otherwise they leave no node that can decode" in str(refused.value)
    check_fit(run, cpus(4, 5), "cpu", "ray")


class Growing:
    """A cluster of which one more state is seen at each look, and what was asked of it."""

    def __init__(self, *states: Sequence[Mapping[str, float]]) -> None:
        self._states: Iterator[Sequence[Mapping[str, float]]] = iter(states)
        self.said: list[str] = []
        self.asked: list[int] = []
        self.closed = 0

    def nodes(self) -> Sequence[Mapping[str, float]]:
        return next(self._states)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_LOOK_SECONDS", 0.0)


def wait(cluster: Growing, run: Run, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    class Asked:
        def __init__(self, run: Run, device: str) -> None:
            self.workers = run.scale.most

        def renew(self) -> None:
            cluster.asked.append(self.workers)

        def close(self) -> None:
            cluster.closed += 1

    monkeypatch.setattr(placement, "Demand", Asked)
    given: dict[str, Any] = {"patient": True, "grows": True, "stopped": lambda: False, **options}
    return wait_for_room(run, "cpu", cluster.nodes, say=cluster.said.append, **given)


def test_a_wait_says_for_what_and_ends_when_the_nodes_are_there(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Growing([], cpus(0), cpus(0, 1))
    run = run_of("scale.workers=[1, 3]", "scale.wait=10m", "data.executor=ray")
    assert wait(cluster, run, monkeypatch) == 1
    assert cluster.said == ["waiting up to 10m for nodes with 1 to 3 x (1 CPUs); nodes: none"]
    assert cluster.asked == [3, 3]
    assert cluster.closed == 1


def test_a_cluster_that_does_not_grow_is_not_waited_for(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match="does not fit the cluster"):
        wait(Growing(cpus(0)), run_of("scale.workers=1", "data.executor=ray"), monkeypatch, patient=False, grows=False)


def test_a_wait_has_an_end(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Growing(*[cpus(0)] * 10000)
    with pytest.raises(LaunchError) as refused:
        wait(cluster, run_of("scale.workers=1", "scale.wait=0.05s", "data.executor=ray"), monkeypatch)
    assert "no nodes came within" in str(refused.value) and "1 x (0 CPUs)" in str(refused.value)
    assert cluster.closed == 1


def test_a_signal_ends_the_wait(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("scale.workers=1", "data.executor=ray")
    assert wait(Growing(cpus(0), cpus(0)), run, monkeypatch, stopped=lambda: True) == 0
