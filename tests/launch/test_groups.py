"""One group of workers after another, with groups and a cluster that are made up here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raycls.config.load import load_text
from raycls.errors import LaunchError, TrainError
from raycls.launch import groups as elastic
from raycls.launch.group import UnplacedError, WorkersLostError
from raycls.launch.groups import run_in_groups
from raycls.run.folder import RunFolder
from raycls.session import evaluation, training
from raycls.session.job import Job
from raycls.session.messages import Began, Event, Lost, Message, Moved, Post, Started
from raycls.train.reasons import Reason

M = TypeVar("M", bound=Message)
_START = Started(workers=1, step=0, unevaluated=False, attempt=1, precision="off")

Group = Callable[["Play", Callable[[], str], Post], dict[str, Any]]


class Play:
    """A cluster with CPUs, and the groups that come one after another."""

    def __init__(self, cpus: int, *groups: Group) -> None:
        self.cpus = cpus
        self.draining: frozenset[str] = frozenset()
        self.groups: Iterator[Group] = iter(groups)
        self.sizes: list[int] = []
        self.posts: list[Message] = []
        self.stop = Reason.NONE

    def run_group(self, *given: Any, workers: int, logs: str) -> dict[str, Any]:
        self.sizes.append(workers)
        return next(self.groups)(self, given[3], given[4])

    def train(self, *overrides: str, function: Any = training.train) -> dict[str, Any]:
        words = ["data.source.name=digits", "data.executor=inline", "scale.resize_every=0.001s", *overrides]
        run = load_text("", "run.yaml", [word for word in words if "resize" not in word or "[" in str(overrides)]).run
        job = Job({}, "folder", {"steps_per_epoch": 100}, None, "cpu", "inline", ".", "")  # type: ignore[arg-type]
        return run_in_groups(function, job, run, lambda: self.stop, self.posts.append, logs="logs")

    def told(self, kind: type[M]) -> list[M]:
        return [post for post in self.posts if isinstance(post, kind)]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Play]:
    def make(cpus: int, *groups: Group) -> Play:
        made = Play(cpus, *groups)
        monkeypatch.setattr(elastic, "run_group", made.run_group)
        monkeypatch.setattr(elastic, "nodes", lambda: ({"CPU": float(made.cpus)},))
        monkeypatch.setattr(elastic, "draining", lambda: made.draining)
        monkeypatch.setattr(elastic, "_LOOK_SECONDS", 0.0)
        return made

    return make


def ended(reason: Reason, step: int = 5) -> dict[str, Any]:
    state = "done" if reason is Reason.DONE else "stopped"
    return {"state": state, "reason": reason, "step": step, "epochs": 1.0, "best": None, "final": None}


def whole(play: Play, asked: Any, post: Any) -> dict[str, Any]:
    post(_START)
    return ended(Reason.DONE, 9)


def lost(play: Play, asked: Any, post: Any) -> dict[str, Any]:
    post(_START)
    raise WorkersLostError("gone")


def lost_before_it_began(play: Play, asked: Any, post: Any) -> dict[str, Any]:
    raise WorkersLostError("gone")


def unplaced(play: Play, asked: Any, post: Any) -> dict[str, Any]:
    time.sleep(0.01)
    raise UnplacedError("no place")


def grown(cpus: int) -> Group:
    def group(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        assert asked() == ""
        play.cpus = cpus
        while not (reason := asked()):
            pass
        return ended(reason)

    return group


def test_a_run_that_nothing_happens_to_is_one_group(play: Callable[..., Play]) -> None:
    made = play(2, whole)
    assert made.train("scale.workers=2")["state"] == "done"
    assert made.sizes == [2]


def test_workers_join_and_leave(play: Callable[..., Play]) -> None:
    def shrunk(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.cpus = 2
        return lost(play, asked, post)

    made = play(1, grown(3), shrunk, whole)
    assert made.train("scale.workers=[1, 3]")["step"] == 9
    assert made.sizes == [1, 3, 2]
    assert made.told(Moved) == [Moved(Reason.RESIZE)]
    assert made.told(Lost) == [Lost(unplaced=False)]


def test_more_room_than_the_most_changes_nothing(play: Callable[..., Play]) -> None:
    def unmoved(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.cpus = 64
        assert [asked() for _ in range(100)] == [""] * 100
        return ended(Reason.DONE)

    made = play(2, unmoved)
    made.train("scale.workers=[1, 2]")
    assert made.sizes == [2]


def test_losses_are_counted(play: Callable[..., Play]) -> None:
    made = play(2, lost, lost, lost)
    with pytest.raises(WorkersLostError):
        made.train("scale.workers=[1, 2]", "scale.max_failures=2")
    assert made.sizes == [2, 2, 2]


def test_an_evaluation_is_begun_anew_where_its_workers_are_lost(play: Callable[..., Play]) -> None:
    def gone(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        post(Began(2))
        raise WorkersLostError("gone")

    def counted(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        return {"count": 8}

    made = play(2, gone, counted)
    options = ("scale.workers=2", "scale.max_failures=1")
    assert made.train(*options, function=evaluation.evaluate) == {"count": 8}
    assert made.sizes == [2, 2] and made.told(Lost) == [Lost(unplaced=False)]
    with pytest.raises(WorkersLostError, match="1 restarts did not help"):
        play(2, gone, gone, counted).train(*options, function=evaluation.evaluate)


def test_losses_after_a_notice_are_not_counted(play: Callable[..., Play]) -> None:
    def noticed(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.draining = frozenset({"node"})
        assert asked() == ""
        play.draining = frozenset()
        return lost(play, asked, post)

    for workers in ("[1, 2]", "2"):
        made = play(2, noticed, whole)
        assert made.train(f"scale.workers={workers}", "scale.max_failures=0")["state"] == "done"


def test_a_notice_excuses_one_loss(play: Callable[..., Play]) -> None:
    """A node that drains for hours must not have a model restarted for ever that always crashes."""

    def noticed(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.draining = frozenset({"node"})
        asked()
        return lost(play, asked, post)

    made = play(2, noticed, noticed, noticed, whole)
    with pytest.raises(WorkersLostError, match="1 restarts did not help"):
        made.train("scale.workers=2", "scale.max_failures=1")
    assert made.sizes == [2, 2, 2]


def test_a_run_that_lost_its_node_after_a_notice_waits_for_another(play: Callable[..., Play]) -> None:
    def noticed(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.draining, play.cpus = frozenset({"node"}), 0
        asked()
        return lost(play, asked, post)

    made = play(2, noticed)
    with pytest.raises(LaunchError, match="no nodes came within"):
        made.train("scale.workers=2", "data.executor=ray", "scale.wait=0.2s")
    assert any("waiting up to" in event.text for event in made.told(Event))


def test_what_finds_no_place_is_tried_with_fewer(play: Callable[..., Play]) -> None:
    """Ray counts what others use as if it were there."""
    made = play(4, unplaced, unplaced, grown(8), whole)
    assert made.train("scale.workers=[1, 8]", "scale.max_failures=0")["state"] == "done"
    assert made.sizes == [4, 3, 2, 8]
    assert made.told(Lost) == [Lost(unplaced=True)]


def test_no_place_is_waited_for_as_long_as_scale_wait_says(play: Callable[..., Play]) -> None:
    made = play(2, *[unplaced] * 1000, whole)
    with pytest.raises(LaunchError, match="no room for the workers came within"):
        made.train("scale.workers=2", "scale.max_failures=0", "scale.wait=0.2s")


def test_a_preempted_group_goes_on_elsewhere(play: Callable[..., Play]) -> None:
    made = play(2, lambda play, asked, post: ended(Reason.PREEMPTED), whole)
    assert made.train("scale.workers=2", "scale.max_failures=0")["state"] == "done"
    assert made.sizes == [2, 2]


def test_a_notice_that_was_left_for_excuses_nothing_more(play: Callable[..., Play]) -> None:
    def left(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.draining = frozenset({"node"})  # for two minutes, on most clouds
        return ended(Reason.PREEMPTED)

    def crashed(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        asked()
        return lost(play, asked, post)

    with pytest.raises(WorkersLostError, match="gone"):
        play(2, left, crashed, whole).train("scale.workers=2", "scale.max_failures=0")


def noticed_and_lost(node: str) -> Group:
    def group(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.draining = frozenset({node})
        asked()
        return lost(play, asked, post)

    return group


def test_preemptions_have_a_bound_of_their_own(play: Callable[..., Play]) -> None:
    def left(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        return ended(Reason.PREEMPTED)

    words = ("scale.workers=2", "scale.max_failures=0")
    groups = (left, noticed_and_lost("one"), left, noticed_and_lost("two"))
    assert play(2, *groups, whole).train(*words)["state"] == "done"
    assert play(2, *groups, whole).train(*words, "scale.max_preemption_failures=4")["state"] == "done"
    for most in range(4):
        made = play(2, *groups, whole)
        with pytest.raises(WorkersLostError, match=r"scale\.max_preemption_failures") as caught:
            made.train(*words, f"scale.max_preemption_failures={most}")
        assert caught.value.what.startswith(f"{most + 1} time")
        assert len(made.sizes) == most + 1


def test_groups_that_never_begin_are_no_losses_but_have_an_end(play: Callable[..., Play]) -> None:
    made = play(2, *[lost_before_it_began] * 10, whole)
    assert made.train("scale.workers=[1, 2]", "scale.max_failures=0")["state"] == "done"
    with pytest.raises(WorkersLostError):
        play(2, *[lost_before_it_began] * 11).train("scale.workers=[1, 2]", "scale.max_failures=0")


def test_errors_of_ours_end_the_run_at_once(play: Callable[..., Play]) -> None:
    def wrong(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        raise TrainError("not finite")

    with pytest.raises(TrainError):
        play(2, wrong).train("scale.workers=[1, 2]")


def test_a_signal_between_two_groups(play: Callable[..., Play]) -> None:
    def moved(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.stop = Reason.SIGTERM
        return ended(Reason.RESIZE, 7)

    made = play(1, moved)
    result = made.train("scale.workers=[1, 2]")
    assert (result["state"], result["reason"], result["step"]) == ("stopped", "sigterm", 7)


def test_a_signal_while_nodes_are_waited_for(
    play: Callable[..., Play], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for step in (100, 250):
        RunFolder("folder").write_json(f"checkpoints/step-{step:08d}/manifest.json", {})

    def gone(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.cpus, play.stop = 0, Reason.SIGINT
        return lost(play, asked, post)

    result = play(1, gone).train("scale.workers=[1, 2]", "data.executor=ray")
    assert (result["state"], result["reason"]) == ("stopped", "sigint")
    assert (result["step"], result["epochs"]) == (250, 2.5)  # what is told to go on from


def test_a_signal_while_ray_starts_places_no_group(
    play: Callable[..., Play], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = play(2)
    made.stop = Reason.SIGTERM
    result = made.train("scale.workers=2")
    assert (result["state"], result["reason"], result["step"]) == ("stopped", Reason.SIGTERM, 0)
    assert made.sizes == []


def test_a_signal_has_the_last_word(play: Callable[..., Play]) -> None:
    """Also where the group was asked to make room before."""

    def both(play: Play, asked: Any, post: Any) -> dict[str, Any]:
        play.cpus = 2
        while not asked():
            pass
        play.stop = Reason.SIGINT
        return ended(asked())

    assert play(1, both).train("scale.workers=[1, 2]")["reason"] == "sigint"


def test_no_room_and_none_to_come(play: Callable[..., Play]) -> None:
    with pytest.raises(LaunchError, match="does not fit"):
        play(0).train("scale.workers=1", "data.executor=ray")
