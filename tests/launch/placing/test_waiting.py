"""The wait for nodes that may come, and what is asked for meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import LaunchError
from raycls.launch.placing import waiting
from raycls.launch.placing.fit import check_fit
from raycls.launch.placing.waiting import Demand, Request, wait_for_room


def run_of(*overrides: str) -> Run:
    base = ("data.source.name=digits", "data.executor=inline")
    return load_text("", "run.yaml", [*base, *overrides]).run


def cpus(*counts: float) -> list[dict[str, float]]:
    return [{"CPU": float(count)} for count in counts]


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
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.0)


def wait(cluster: Growing, run: Run, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    class Asked:
        def __init__(self, run: Run, device: str) -> None:
            self.workers = run.scale.max_workers

        def renew(self) -> None:
            cluster.asked.append(self.workers)

        def close(self) -> None:
            cluster.closed += 1

    monkeypatch.setattr(waiting, "Demand", Asked)
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


def packed(bundles: Sequence[Mapping[str, float]], size: float) -> int:
    """Nodes of `size` CPUs that an autoscaler adds for `bundles`: the largest first, each on the first with room."""
    free: list[float] = []
    for need in sorted((bundle["CPU"] for bundle in bundles), reverse=True):
        index = next((index for index, left in enumerate(free) if left >= need - 1e-9), None)
        if index is None:
            free.append(size)
            index = len(free) - 1
        free[index] -= need
    return len(free)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize("share", [0.01, 0.5, 1, 1.5])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 14])
def test_the_nodes_that_are_asked_for_are_enough(workers: int, threads: int, share: float, size: int) -> None:
    """Two workers of one CPU fit a node of two, and leave nothing to decode with: it takes another one."""
    facts = [f"scale.workers={workers}", f"train.micro_batches={workers}", f"scale.threads={threads}"]
    run = run_of(*facts, f"scale.cpus_per_worker={share}", "data.executor=ray")
    check_fit(run, cpus(*[size] * packed(Demand(run, "cpu").bundles, size)), "cpu", "ray")


def test_what_is_asked_for_by_hand() -> None:
    run = run_of("scale.workers=2", "scale.threads=3", "data.executor=ray")
    assert Demand(run, "cuda").bundles == [{"CPU": 3.0, "GPU": 1.0}] * 2 + [{"CPU": pytest.approx(0.91)}]
    assert Demand(run_of("scale.workers=[1, 2]"), "cpu").bundles == [{"CPU": 1.0}] * 2


@pytest.mark.parametrize("there", range(1, 65))
def test_less_is_asked_for_until_the_cluster_can_add_it(there: int) -> None:
    """Ray's newer autoscaler adds nothing at all where it cannot add everything."""
    request = Request([{"GPU": 1.0}], 1, 64)
    for _ in range(12):
        request.answer(refused=len(request.bundles) > there)
    assert len(request.bundles) == there


def test_a_request_of_fewer_units_follows_at_once() -> None:
    request = Request([{"CPU": 1.0}], 1, 8)
    request.want(3)
    assert len(request.bundles) == 3
    request.answer(refused=True)
    request.want(9)
    assert len(request.bundles) == 1  # of which more than two are known to be too many
    request.want(0)
    assert len(request.bundles) == 1
