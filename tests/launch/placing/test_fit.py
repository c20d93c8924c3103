"""How many workers a cluster has room for, and the wait for nodes, on made-up clusters."""

from __future__ import annotations

import pytest

from raycls.cluster.connection import Cluster
from raycls.cluster.growth import Growth
from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import LaunchError
from raycls.launch.placing.fit import check_device, check_fit, check_growth, group_size, workers_on


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


@pytest.mark.parametrize(
    ("share", "node", "device", "taken", "count"),
    [
        (2.0, {"CPU": 5.0}, "cpu", 0.0, 2),
        (2.0, {"CPU": 5.0}, "cpu", 1.5, 1),
        (0.1, {"CPU": 0.3}, "cpu", 0.0, 3),  # 2.9999999999999996 in floats
        (2.0, {"CPU": 64.0, "GPU": 3.0}, "cuda", 0.0, 3),
        (2.0, {"CPU": 64.0}, "cuda", 0.0, 0),
        (2.0, {"GPU": 1.0}, "cpu", 0.0, 0),
    ],
)
def test_workers_of_some_cpus_on_a_node(
    share: float, node: dict[str, float], device: str, taken: float, count: int
) -> None:
    assert workers_on(share, node, device, taken) == count


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
