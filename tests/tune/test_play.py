"""A search from its start to its end, with a board that plays itself in the place of Ray Tune."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from harness.jobs import write_arrays

from raycls.cluster.connection import Cluster
from raycls.config.load import load
from raycls.errors import CheckpointError, LaunchError
from raycls.screen.search import SearchDisplay
from raycls.search.board import Task
from raycls.train.reasons import Reason
from raycls.tune import play as searching
from raycls.tune.play import SearchOutcome, search

_CONFIG = """\
data: {source: {name: arrays, path: images.npz}, image_size: 12, batch_size: 16, executor: inline}
augment: {train: [], eval: []}
model: {name: tiny_cnn, args: {width: 8}}
train: {duration: 4ep}
scale: {workers: 1}
search:
  trials: 2
  scheduler: {name: none}
  space: {optim.lr: [0.1, 0.2, 0.3]}
"""
Event = Callable[[Any, str], str | None]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = dict(np.load(write_arrays(tmp_path / "images.npz", train=40, val=8)))
    np.savez("images.npz", **arrays, test_images=arrays["val_images"], test_labels=arrays["val_labels"])
    Path("search.yaml").write_text(_CONFIG)


class Playing(searching._Play):  # pyright: ignore[reportPrivateUsage]
    """Every trial ends with its number as its value. `happens` is called before each and after the last one; what it
    is to forget, it forgets.
    """

    happens: Event = staticmethod(lambda play, when: None)

    def __init__(self, plan: Any, cluster: Any, stop: Any, display: Any) -> None:
        self.plan, self.stop, self.display = plan, stop, display
        self.board, self.ledger = plan.board, plan.board.ledger
        self.room = SimpleNamespace(wait=lambda stopped: True, text="1 at a time")
        self.full, self.confirming, self.interrupted = "", False, Reason.NONE
        self.cluster, self.device, self.dashboard = Cluster(True, "local", {}, ""), "cpu", ""

    def _tune(self, take: Callable[[], Task | None]) -> None:
        while not self.interrupted and not self.full and (task := take()) is not None:
            if Playing.happens(self, task.trial) == "forget it":
                continue
            if self.interrupted or self.full:
                break
            self.board.judge(task.trial, step=12, epoch=4, seconds=1, values={"top1": task.number / 10})
            if task.phase == "confirm":
                self.ledger.test(task.trial, values={"top1": 0.5})
            self.board.end(task.trial, state="finished", epochs=4, seconds=1)
        Playing.happens(self, "after")


@contextmanager
def no_cluster() -> Iterator[None]:
    yield


def play(monkeypatch: pytest.MonkeyPatch, event: Event, *overrides: str) -> tuple[SearchOutcome, str]:
    """A whole command, and what it said."""
    monkeypatch.setattr(searching, "running_cluster", no_cluster)
    monkeypatch.setattr(searching, "_Play", Playing)
    monkeypatch.setattr("raycls.launch.mailbox.make_mailbox", lambda: None)
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray was started"))
    monkeypatch.setattr(Playing, "happens", staticmethod(event))
    said = io.StringIO()
    with SearchDisplay(said) as display:
        outcome = search(load("search.yaml", overrides), command=["raycls"], display=display)
    return outcome, said.getvalue()


def interrupting(when: str, reason: Reason = Reason.SIGINT) -> Event:
    def event(play: Any, now: str) -> None:
        if now == when:
            play.interrupted = reason

    return event


def nothing(play: Any, now: str) -> None:
    pass


@pytest.mark.parametrize("reason", [Reason.SIGINT, Reason.BUDGET])
def test_what_comes_after_the_last_trial_interrupts_nothing(monkeypatch: pytest.MonkeyPatch, reason: Reason) -> None:
    outcome, said = play(monkeypatch, interrupting("after", reason))
    assert (outcome.state, outcome.exit_code, outcome.best) == ("done", 0, "0002")
    assert "rerun the command" not in said
    assert Path("runs/search/curves.svg").exists()
    outcome, said = play(monkeypatch, lambda play, now: pytest.fail("it was played again"))
    assert (outcome.state, "starting Ray" in said) == ("done", False)


def test_a_signal_before_the_last_trial_ended_interrupts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, said = play(monkeypatch, interrupting("0002"))
    assert (outcome.state, outcome.exit_code, outcome.best) == ("stopped", 130, "0001")
    assert "rerun the command" in said
    outcome, _ = play(monkeypatch, nothing)
    assert (outcome.state, outcome.exit_code, outcome.best) == ("done", 0, "0002")


def test_a_signal_before_the_confirmation_leaves_it_to_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    confirm = "search.confirm.seeds=2"
    outcome, said = play(monkeypatch, interrupting("after", Reason.SIGTERM), confirm)
    assert (outcome.exit_code, "confirm" in said) == (143, False)
    outcome, said = play(monkeypatch, nothing, confirm)
    assert (outcome.exit_code, "0002: n 2, mean 0.5000" in said) == (0, True), said


@pytest.mark.faults
def test_a_full_disk_stops_the_search_and_blames_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(play: Any, now: str) -> None:
        if now == "0002":
            play._is_full("0002", "model.safetensors: no space left on device")

    with pytest.raises(LaunchError, match="cannot be written") as raised:
        play(monkeypatch, fill)
    assert "no space left" in str(raised.value) and "rerun the command" in str(raised.value)
    outcome, _ = play(monkeypatch, nothing)
    assert (outcome.exit_code, outcome.best) == (0, "0002")


def test_a_trial_that_tune_gave_up_is_told_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match="1 trial did not come to an end") as raised:
        play(monkeypatch, lambda play, now: "forget it" if now == "0001" else None)
    assert raised.value.found == "0001"
    outcome, _ = play(monkeypatch, nothing)
    assert (outcome.exit_code, outcome.best) == (0, "0002")


def test_a_signal_after_the_end_of_the_budget_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves evaluations too, which may take longer than whoever sends it waits."""
    told: list[str] = []

    def event(play: Any, now: str) -> None:
        if now == "0002":
            play.interrupted, play.told = Reason.BUDGET, Reason.SEARCH
            play.mailbox = SimpleNamespace(stop=SimpleNamespace(remote=told.append))
            play.room.ask = lambda confirming: None
            play.stop._signalled(signal.SIGTERM, None)
            play._tick()

    outcome, _ = play(monkeypatch, event)
    assert (outcome.state, outcome.exit_code, told) == ("stopped", 143, ["sigterm"])


def test_an_error_of_ours_is_found_in_what_tune_makes_of_it() -> None:
    own = CheckpointError("the ledger cannot be written")
    wrapped = RuntimeError("of Tune")
    wrapped.__context__ = own
    outer = RuntimeError("of the tuner")
    outer.__cause__ = wrapped
    assert searching._own(outer) is own  # pyright: ignore[reportPrivateUsage]
    assert searching._own(RuntimeError()) is None  # pyright: ignore[reportPrivateUsage]


def test_networks_of_several_costs_have_a_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four classes and 12x12 images; `cnn` with one block, kernel 3 and no expansion, counted by hand."""

    def flops(width: int) -> int:
        pixels = 12 * 12
        return 2 * (pixels * 9 * 3 * width + 2 * pixels * 9 * width * width + 4 * width)

    def parameters(width: int) -> int:
        return 9 * 3 * width + 2 * 9 * width * width + 3 * 2 * width + 4 * width + 4

    space = "search.space={model.args.widths: [[2], [4], [8], [3]], optim.lr: [0.1]}"
    model = ("model={name: cnn, args: {blocks: [1]}}", space, "search.algorithm=grid", "search.trials=4")
    limit = f"search.max_flops={flops(4)}"  # the third network is not tried
    _, said = play(monkeypatch, nothing, *model, limit)
    # their values rise with their numbers: of the widths 2, 4 and 3 the last is better and cheaper than the second
    rows = [line.split(",") for line in Path("runs/search/front.csv").read_text().splitlines()]
    assert rows[0] == ["trial", "state", "epochs", "parameters", "flops", "top1", "optim.lr", "model.args.widths"]
    assert [(row[3:5], row[7]) for row in rows[1:]] == [
        ([str(parameters(width)), str(flops(width))], f"[{width}]") for width in (2, 3)
    ]
    assert "of 3 trials: no other is as good for fewer FLOPs" in said
    assert Path("runs/search/front.svg").read_text().count("search.max_flops") == 1


@pytest.mark.parametrize("space", ["{optim.lr: [0.1, 0.2]}", "{data.batch_size: [8, 16]}"])
def test_networks_of_one_cost_have_none(monkeypatch: pytest.MonkeyPatch, space: str) -> None:
    _, said = play(monkeypatch, nothing, f"search.space={space}")
    assert "front" not in said and not Path("runs/search/front.csv").exists()
