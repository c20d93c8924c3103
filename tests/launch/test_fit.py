"""How many workers a cluster has room for, and the wait for nodes, on made-up clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from raycls.cluster.connection import Cluster
from raycls.cluster.growth import Growth
from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import LaunchError
from raycls.launch import fit
from raycls.launch.fit import check_device, check_fit, check_growth, group_size
from raycls.launch.waiting import Demand, Request, wait_for_room


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
    monkeypatch.setattr(fit, "_LOOK_SECONDS", 0.0)


def wait(cluster: Growing, run: Run, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    class Asked:
        def __init__(self, run: Run, device: str) -> None:
            self.workers = run.scale.most

        def renew(self) -> None:
            cluster.asked.append(self.workers)

        def close(self) -> None:
            cluster.closed += 1

    monkeypatch.setattr(fit, "Demand", Asked)
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


FOUR = Growth(True, {"CPU": 60.0, "GPU": 4.0}, ((4, {"CPU": 8.0, "GPU": 1.0}), (2, {"CPU": 16.0})))


@pytest.mark.parametrize(
    ("overrides", "device", "words"),
    [
        (["scale.workers=64", "train.micro_batches=64"], "cuda", "at most 4 GPUs for 64 workers"),
        (["scale.workers=5", "train.micro_batches=5", "scale.cpus_per_worker=16"], "cpu", "room for 2 of 5 workers"),
        (["scale.workers=5", "train.micro_batches=5", "scale.cpus_per_worker=14"], "cpu", "room for 2 of 5 workers"),
        # every node for itself would do, but all of them together have more than the limit
        (["scale.workers=62", "train.micro_batches=62", "scale.cpus_per_worker=0.99"], "cpu", "60 CPUs at most, and 6"),
    ],
)
def test_what_no_growth_has_room_for_is_refused_at_once(overrides: list[str], device: str, words: str) -> None:
    cluster = Cluster(False, "", {}, "logs", ({"CPU": 0.0},), FOUR)
    with pytest.raises(LaunchError, match="however far that grows") as refused:
        check_growth(run_of(*overrides), device, cluster)
    assert words in str(refused.value)


def test_what_some_growth_has_room_for_is_not_refused() -> None:
    four = run_of("scale.workers=4", "data.executor=ray")
    check_growth(four, "cuda", Cluster(False, "", {}, "logs", ({"CPU": 0.0},), FOUR))
    many = run_of("scale.workers=64", "train.micro_batches=64")
    check_growth(many, "cuda", Cluster(False, "", {}, "logs", (), Growth(True)))  # nobody knows how far
    unlimited = Growth(True, {"CPU": float("inf"), "GPU": float("inf")}, ((-1, {"CPU": 8.0, "GPU": 1.0}),))
    check_growth(run_of("scale.workers=4"), "cuda", Cluster(False, "", {}, "logs", (), unlimited))
    there = Cluster(False, "", {"GPU": 8.0}, "logs", ({"CPU": 8.0, "GPU": 8.0},), FOUR)
    check_growth(run_of("scale.workers=8", "train.micro_batches=8"), "cuda", there)  # whatever the books say


def test_nodes_of_an_unknown_kind_are_not_guessed() -> None:
    head = Cluster(False, "", {}, "logs", ({"CPU": 0.0},), Growth(True))
    with pytest.raises(LaunchError) as refused:
        check_device(run_of("scale.workers=2"), "cpu", head)
    assert "scale.device" in str(refused.value) and "scale.device=cuda" in str(refused.value)
    check_device(run_of("scale.workers=2", "scale.device=cpu"), "cpu", head)
    check_device(run_of("scale.workers=2"), "cpu", Cluster(False, "", {}, "logs", ({"CPU": 4.0},), Growth(True)))
    check_device(run_of("scale.workers=2"), "cpu", Cluster(False, "", {}, "logs", (), FOUR))
    check_device(run_of("scale.workers=2"), "cpu", Cluster(False, "", {}, "logs", ()))
