"""The places of a search on made-up clusters that grow: waited for, counted anew, asked for while trials wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from raycls.cluster.connection import Cluster
from raycls.cluster.growth import Growth
from raycls.config.load import load_text
from raycls.errors import LaunchError
from raycls.launch.placing import waiting
from raycls.tune import room as search_room
from raycls.tune.room import Room

Nodes = Sequence[dict[str, float]]
FOUR = Growth(True, {"CPU": 4.0}, ((2, {"CPU": 2.0}),))


class Asked:
    """What was asked of the cluster."""

    def __init__(self, unit: list[dict[str, float]], least: int, most: int) -> None:
        self.unit, self.wanted = unit, most
        self.made: list[Any] = []

    def want(self, most: int) -> None:
        self.wanted = most

    def renew(self) -> None:
        self.made.append(self.wanted)

    def close(self) -> None:
        self.made.append("closed")


class Board:
    """So many trials have ended and so many run."""

    def __init__(self, ended: int = 0, running: int = 0, *, more: bool = True, population: bool = False) -> None:
        self.searched = [SimpleNamespace(ended=True, phase="search")] * ended
        self.running = [SimpleNamespace(ended=False, phase="search")] * running
        self.searched += self.running
        self.has_more, self.population = more, object() if population else None
        self.ledger = SimpleNamespace(trials={})


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Room, Any, list[str]]]:
    def made(
        growth: Growth, states: Sequence[Nodes], *words: str, board: Board | None = None
    ) -> tuple[Room, Any, list[str]]:
        seen, said = iter(states), list[str]()
        monkeypatch.setattr(search_room, "nodes", lambda: next(seen))
        monkeypatch.setattr(search_room, "Request", Asked)
        monkeypatch.setattr(search_room, "_NODES_SECONDS", 0.0)
        monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.0)
        run = load_text("", "search.yaml", ["data.source.name=digits", "search.trials=8", "scale.wait=9m", *words]).run
        plan: Any = SimpleNamespace(run=run, board=board or Board())
        room = Room(plan, Cluster(False, "", {}, "logs", ({"CPU": 0.0},), growth), "cpu", said.append)
        return room, room._request, said  # pyright: ignore[reportPrivateUsage]

    return made


def cpus(*counts: float) -> Nodes:
    return [{"CPU": float(count)} for count in counts]


def test_a_search_begins_with_the_first_place_and_asks_for_one_for_every_trial(make: Any) -> None:
    room, asked, said = make(FOUR, [cpus(0), cpus(0, 2), cpus(0, 2), cpus(0, 2, 2)], "scale.workers=1")
    assert room.wait(lambda: False)
    assert said == ["waiting up to 9m for nodes with 1 x (1 CPUs) for a trial; nodes: 1 x (0 CPUs)"]
    assert (asked.unit, asked.made) == ([{"CPU": 1.0}], [8, "closed"])
    assert (room.most(), room.look(), room.look()) == (2, 2, 4)
    assert said[1:] == ["4 at a time: 4 CPUs, 1 for a trial (1 thread)"]


def test_a_search_waits_for_all_that_a_trial_of_several_workers_takes(make: Any) -> None:
    words = ("scale.workers=2", "train.micro_batches=2", "scale.cpus_per_worker=1", "data.executor=ray")
    room, asked, said = make(FOUR, [cpus(0), cpus(0, 2), cpus(0, 2, 2)], *words)
    assert room.wait(lambda: False)
    assert "for nodes with 3 x (1 CPUs) for a trial" in said[0]
    assert (asked.unit, asked.made) == ([{"CPU": 1.0}] * 3, [8, 8, "closed"])


@pytest.mark.parametrize(
    ("board", "words", "wanted"),
    [
        (Board(ended=3, running=2), [], 5),
        (Board(ended=3, running=2), ["search.max_concurrent=4"], 4),
        (Board(ended=3, running=2, more=False), [], 2),  # all there are, or a target was reached
        (Board(ended=8), [], 1),
    ],
)
def test_no_place_is_asked_for_that_no_trial_would_take(make: Any, board: Board, words: list[str], wanted: int) -> None:
    room, asked, _ = make(FOUR, [], "scale.workers=1", *words, board=board)
    room.ask()
    room.close()
    assert asked.made == [wanted, "closed"]


def test_a_search_on_a_cluster_that_does_not_grow_is_refused_at_once(make: Any) -> None:
    room, asked, said = make(Growth(), [cpus(0)], "scale.workers=1")
    with pytest.raises(LaunchError, match="would wait for ever"):
        room.wait(lambda: False)
    assert (asked, said) == (None, [])
    room.ask()


def test_a_trial_that_no_growth_has_room_for_is_refused_at_once(make: Any) -> None:
    with pytest.raises(LaunchError, match="however far that grows") as refused:
        make(FOUR, [], "scale.workers=1", "scale.threads=3")
    assert "2 CPUs, 0 GPUs" in str(refused.value) and "3 CPUs on one node" in str(refused.value)


def test_a_population_needs_all_its_places(make: Any) -> None:
    words = ("scale.workers=2", "train.micro_batches=2", "data.executor=inline", "scale.cpus_per_worker=1")
    many = Growth(True, {"CPU": 32.0}, ((16, {"CPU": 2.0}),))
    room, _, _ = make(many, [cpus(2), cpus(*[2] * 8)], *words, board=Board(population=True))
    assert room.wait(lambda: False) and room.most() == 8
    with pytest.raises(LaunchError, match="however far") as refused:
        make(FOUR, [], *words, board=Board(population=True))
    assert "2 at a time" in str(refused.value)


def test_a_signal_ends_the_wait(make: Any) -> None:
    room, asked, _ = make(FOUR, [cpus(0)], "scale.workers=1")
    assert not room.wait(lambda: True)
    assert asked.made[-1] == "closed"
