"""How many trials fit: worked out by hand, and gone through way by way, so that none waits for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from raycls.config.load import load_text
from raycls.errors import LaunchError
from raycls.tune.room import Slots

Node = dict[str, float]


def slots(*overrides: str, device: str = "cpu") -> Slots:
    return Slots.of(load_text("", "search.yaml", list(overrides)).run, device)


def nodes(*cpus: float, gpus: float = 0) -> list[Node]:
    return [{"CPU": count, **({"GPU": gpus} if gpus else {})} for count in cpus]


def test_trials_of_one_worker_take_their_threads() -> None:
    one = slots("scale.workers=1")
    assert (one.cpus, one.resources(), one.nested) == (1.0, {"CPU": 1.0}, False)
    assert one.count(nodes(4)) == 4
    assert one.arithmetic(nodes(4)) == "4 at a time: 4 CPUs, 1 for a trial (1 thread)"
    three = slots("scale.workers=1", "scale.threads=3")
    assert three.count(nodes(8, 2, 3)) == 3  # two on the first, none on the second, one on the third
    assert three.arithmetic(nodes(8, 2, 3)) == "3 at a time: 13 CPUs, 3 for a trial (3 threads)"
    reserved = slots("scale.workers=1", "scale.cpus_per_worker=2.5")
    assert (reserved.resources(), reserved.count(nodes(5))) == ({"CPU": 2.5}, 2)
    assert slots("scale.workers=0").count(nodes(2)) == 2


def test_a_trial_of_one_worker_never_decodes_through_ray() -> None:
    assert slots("scale.workers=1", "data.executor=ray").decoding == 0
    assert slots("scale.workers=1", "data.executor=auto").decoding == 0


def test_decoding_processes_of_one_worker_keep_cpus_busy_but_reserve_none() -> None:
    busy = slots("scale.workers=1", "data.executor=processes", "data.processes=2")
    assert (busy.cpus, busy.resources()) == (3.0, {"CPU": 1.0})
    assert (busy.count(nodes(7)), busy.count(nodes(2))) == (2, 1)
    assert busy.arithmetic(nodes(7)) == "2 at a time: 7 CPUs, 3 for a trial (1 thread + 2 for decoding)"


def test_trials_of_several_workers_count_threads_and_decoding() -> None:
    facts = ("scale.workers=2", "train.micro_batches=4")
    ray = slots(*facts)
    assert ray.resources() == {"node:__internal_head__": 0.001}
    assert ray.arithmetic(nodes(6)) == (
        "2 at a time: 6 CPUs, 3 for a trial (2 x 1 thread + 1 for decoding); the trials' drivers take none"
    )
    processes = slots(*facts, "data.executor=processes", "data.processes=3")
    assert (processes.cpus, processes.count(nodes(16))) == (8.0, 2)
    inline = slots(*facts, "data.executor=inline", "scale.threads=2")
    assert (inline.cpus, inline.count(nodes(16)), inline.count(nodes(2))) == (4.0, 4, 1)


def test_whole_cpus_for_workers_leave_room_for_decoding() -> None:
    whole = ("scale.workers=2", "train.micro_batches=4", "scale.cpus_per_worker=1")
    assert slots(*whole, "data.executor=inline").count(nodes(4)) == 2
    assert slots(*whole, "search.max_concurrent=2").count(nodes(4)) == 1  # 4 CPUs for 4 workers: none left
    assert slots(*whole, "search.max_concurrent=2").count(nodes(5)) == 2
    with pytest.raises(LaunchError, match="room for 1 of 2 workers"):
        slots(*whole).check(nodes(2))


def test_every_trial_has_a_reading_task_of_its_own() -> None:
    half = ("scale.workers=2", "train.micro_batches=4", "scale.cpus_per_worker=0.5", "search.max_concurrent=9")
    assert slots(*half).count(nodes(2.92)) == 2  # 0.92 beside four workers: 0.9, and two of 0.01
    assert slots(*half).count(nodes(2.91)) == 1


def test_workers_that_are_spread_leave_their_room_on_no_node() -> None:
    """Seven of 0.5 CPUs on each of two nodes of 4: 0.5 left on both, and decoding needs 0.91 on one."""
    spread = slots("scale.workers=14", "train.micro_batches=14", "scale.cpus_per_worker=0.5")
    with pytest.raises(LaunchError) as refused:
        spread.check(nodes(4, 4))
    assert "however they are spread" in str(refused.value)
    assert "2 x (4 CPUs)" in str(refused.value)
    slots("scale.workers=13", "train.micro_batches=14", "scale.cpus_per_worker=0.5").check(nodes(4, 4))


def test_gpus_and_their_parts() -> None:
    whole = slots("scale.workers=1", device="cuda")
    assert whole.resources() == {"CPU": 1.0, "GPU": 1.0}
    assert whole.count(nodes(8, 8, gpus=2)) == 4
    assert whole.count(nodes(1, 8, gpus=2)) == 3
    half = slots("scale.workers=1", "search.gpus_per_trial=0.5", device="cuda")
    assert half.arithmetic(nodes(8, gpus=2)) == (
        "4 at a time: 8 CPUs, 1 for a trial (1 thread); 2 GPUs, 0.5 for a trial"
    )
    assert slots("scale.workers=1", "search.gpus_per_trial=0.4", device="cuda").count(nodes(8, gpus=2)) == 4
    assert slots("scale.workers=1", "search.gpus_per_trial=0.1", device="cuda").count(nodes(32, gpus=1)) == 10
    assert slots("scale.workers=1", "search.gpus_per_trial=0.5", device="cpu").gpus == 0
    nested = slots("scale.workers=2", "train.micro_batches=4", device="cuda")
    assert (nested.gpus, nested.count(nodes(8, 8, gpus=3))) == (2.0, 3)
    assert nested.count(nodes(8, gpus=2)) == 1


def test_the_users_limit() -> None:
    few = slots("scale.workers=1", "search.max_concurrent=2")
    assert few.count(nodes(8)) == 2
    assert few.arithmetic(nodes(8)).endswith("; search.max_concurrent 2")
    assert slots("scale.workers=1", "search.max_concurrent=20").count(nodes(8)) == 8  # more would have no place
    more = slots("scale.workers=2", "train.micro_batches=2", "search.max_concurrent=3")
    assert (more.count(nodes(3)), slots("scale.workers=2", "train.micro_batches=2").count(nodes(3))) == (3, 1)


@pytest.mark.parametrize(
    ("overrides", "device", "cluster", "words"),
    [
        (["scale.workers=1", "scale.threads=8"], "cpu", nodes(4, 6), ["4 CPUs, 0 GPUs, 6 CPUs", "8 CPUs on one node"]),
        (["scale.workers=1"], "cuda", nodes(4), ["4 CPUs, 0 GPUs", "1 CPUs and 1 GPUs on one node"]),
        (["scale.workers=1"], "cpu", [], ["no node"]),
        (["scale.workers=3", "train.micro_batches=3"], "cuda", nodes(4, gpus=2), ["2 GPUs for 3 workers"]),
        (["scale.workers=2", "train.micro_batches=2", "scale.cpus_per_worker=3"], "cpu", nodes(4), ["1 of 2 workers"]),
    ],
)
def test_a_trial_that_never_fits_is_refused_with_the_numbers(
    overrides: list[str], device: str, cluster: list[Node], words: list[str]
) -> None:
    found = slots(*overrides, device=device)
    with pytest.raises(LaunchError) as refused:
        found.check(cluster)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "for ever" in str(refused.value)
    assert found.count(cluster) == 0


def test_a_cluster_that_grows_has_room_for_more() -> None:
    one, nested = slots("scale.workers=1"), slots("scale.workers=2", "train.micro_batches=2")
    assert [one.count(nodes(*[2] * count)) for count in (1, 2, 3)] == [2, 4, 6]
    assert [nested.count(nodes(*[3] * count)) for count in (1, 2, 3)] == [1, 2, 3]
    assert [one.count([{"CPU": 2}, {"memory": 1e9}])] == [2]  # a node without CPUs


def test_what_a_cluster_that_grows_is_asked_for() -> None:
    one = slots("scale.workers=1", "scale.threads=3", "search.gpus_per_trial=0.5", device="cuda")
    assert (one.bundles(), one.text()) == ([{"CPU": 3.0, "GPU": 0.5}], "1 x (3 CPUs, 0.5 GPUs)")
    nested = slots("scale.workers=2", "train.micro_batches=2", "data.executor=ray")
    assert (nested.bundles(), nested.text()) == ([{"CPU": 1.0}] * 3, "3 x (1 CPUs)")
    wide = slots("scale.workers=2", "train.micro_batches=2", "scale.threads=4", device="cuda")
    assert wide.bundles() == [{"CPU": 4.0, "GPU": 1.0}] * 2 + [{"CPU": 1.0}]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("share", [30, 50, 70, 100])
def test_so_many_trials_never_wait_for_ever(workers: int, share: int) -> None:
    """Small clusters, every way in which Ray may spread the workers and the reading tasks over them."""
    facts = [f"scale.workers={workers}", f"train.micro_batches={workers}", f"scale.cpus_per_worker={share / 100}"]
    checked = 0
    for cpus in itertools.combinations_with_replacement([0, 90, 91, 100, 200, 300], 2):
        cluster = nodes(*(count / 100 for count in cpus))
        found = slots(*facts, "search.max_concurrent=100")
        count = found.count(cluster)
        assert count == slots(*facts, f"search.max_concurrent={max(1, count)}").count(cluster)
        assert slots(*facts).count(cluster) <= count
        try:
            found.check(cluster)
        except LaunchError:
            assert count == 0
            continue
        assert count >= 1
        for trials in range(1, count + 1):
            for free in spreads(cpus, trials * workers, share):
                left = [max(rest) for rest in spreads(free, trials, 1)]
                assert min(left) >= 90, (cpus, trials, free)
                checked += len(left)
    assert checked > 10


def spreads(cpus: Sequence[int], count: int, size: int) -> Iterator[tuple[int, ...]]:
    """What is left on each node by `count` bundles of `size`, hundredths of a CPU, for every way to place them."""
    if len(cpus) == 1:
        if count * size <= cpus[0]:
            yield (cpus[0] - count * size,)
        return
    for here in range(min(count, cpus[0] // size) + 1):
        for rest in spreads(cpus[1:], count - here, size):
            yield (cpus[0] - here * size, *rest)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("part", ["auto", 0.3, 0.5])
def test_so_many_trials_of_one_worker_are_all_placed(threads: int, part: Any) -> None:
    """In whatever order nodes are filled, and every part of a GPU on one GPU."""
    found = slots("scale.workers=1", f"scale.threads={threads}", f"search.gpus_per_trial={part}", device="cuda")
    for shape in itertools.product(range(5), range(3), range(5), range(3)):
        cluster = [{"CPU": shape[0], "GPU": shape[1]}, {"CPU": shape[2], "GPU": shape[3]}]
        placed = 0
        for node in cluster:
            cpus, gpus = node["CPU"], [1.0] * node["GPU"]
            while cpus >= threads and any(left >= found.gpus - 1e-9 for left in gpus):
                cpus -= threads
                gpus[next(index for index, left in enumerate(gpus) if left >= found.gpus - 1e-9)] -= found.gpus
                placed += 1
        assert found.count(cluster) == min(placed, max(1, sum(node["CPU"] for node in cluster) // threads))
