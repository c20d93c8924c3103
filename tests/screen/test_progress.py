"""Nothing stands still: a real training on a real terminal, its screen looked at all the time."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.jobs import curve, weights, write_arrays
from harness.plugins import user_module
from harness.terminals import Pseudoterminal

from raycls.config.load import load_text
from raycls.launch import trainer
from raycls.launch.placing.waiting import wait_for_room
from raycls.screen.run import Display

_SLOW = """
import time
from torch import nn


class Slow(nn.Module):
    def __init__(self, num_classes: int, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        time.sleep(self.seconds)
        return self.head(images.mean(dim=(2, 3)))


def nap(seconds: float):
    def same(image):
        time.sleep(seconds)
        return image

    return same


_slept = []


def late(seconds: float):
    def same(image):
        if not _slept:  # once in each process
            _slept.append(seconds)
            time.sleep(seconds)
        return image

    return same
"""

_CONFIG = """
run: {name: run}
data: {source: {name: arrays, path: data.npz}, image_size: 12, batch_size: 8}
augment: {train: [], eval: []}
model: {name: "nets:Slow", args: {seconds: 0.5}}
train: {duration: 1ep, amp: off}
evaluate: {batch_size: 4}
track: {log_every: 1000st}
scale: {workers: 0}
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    write_arrays(tmp_path / "data.npz", train=64, val=20)
    with user_module(tmp_path, "nets", _SLOW):
        yield


def _found(pattern: str) -> Callable[[str], str | None]:
    def find(screen: str) -> str | None:
        match = re.search(pattern, screen)
        return match[1] if match else None

    return find


def _screens(*overrides: str) -> Pseudoterminal:
    """A training, and every screen there was."""
    with Pseudoterminal() as terminal, Display(terminal.stream) as display:
        trainer.train(load_text(_CONFIG, "run.yaml", overrides).run, display=display)
        display.close()
    return terminal


def test_steps_and_an_evaluation_move_on_the_screen() -> None:
    """Eight steps and five batches of half a second each, and not a line of the log before the evaluation."""
    terminal = _screens()
    longest, steps = terminal.longest_stand(_found(r"(\d+)/8 steps .*\n(?!.*train loss)"))
    assert longest < 2
    assert steps == sorted(steps) and len(steps) >= 5
    longest, images = terminal.longest_stand(_found(r"evaluating: (\d+)/20 images"))
    assert longest < 2
    assert len(images) >= 3 and set(images) <= {"0", "4", "8", "12", "16"}
    speeds = [float(found) for _, screen in terminal.seen if (found := _found(r"([\d.]+) images/s")(screen))]
    assert 8 < speeds[0] < 17  # eight images in half a second and what the machine adds: 16 at most
    early = next(screen for _, screen in terminal.seen if re.search(r"ETA \d", screen))
    assert _found(r"(\d)/8 steps")(early) in ("1", "2", "3")
    assert terminal.page.cursor
    assert "steps 0:" not in terminal.page.text  # what moved is gone, what was said stays
    assert "val loss" in terminal.page.text and "run folder" in terminal.page.text


def test_a_step_of_many_seconds_and_a_wait_for_data_move_on_the_screen() -> None:
    terminal = _screens(
        "model.args.seconds=3",
        'augment.train=[{"nets:nap": {seconds: 0.4}}]',
        "train.duration=1st",
        "evaluate.every=off",
    )
    longest, waits = terminal.longest_stand(_found(r"waiting for data for (\d+) s"))
    assert longest < 2 and {"1", "2"} <= set(waits)
    longest, steps = terminal.longest_stand(_found(r"(step 1( for \d+ s)?)"))
    assert steps[:2] == ["step 1", "step 1 for 2 s"]


def test_a_screen_changes_neither_the_weights_nor_the_history(tmp_path: Path) -> None:
    quick = ["model.args.seconds=0", "track.log_every=3st", "checkpoint.every=2st"]
    _screens(*quick)
    run = load_text(_CONFIG, "run.yaml", [*quick, "run.name=plain"]).run
    trainer.train(run, display=Display(io.StringIO()))
    live, plain = tmp_path / "runs" / "run", tmp_path / "runs" / "plain"
    assert weights(live) == weights(plain)
    assert curve(live) == curve(plain)
    # logs after steps 3 and 6 and before the evaluation after step 8, and nothing of what the screen was told
    assert [(record["kind"], record["step"]) for record in curve(live)] == [
        ("train", 3),
        ("train", 6),
        ("train", 8),
        ("evaluate", 8),
    ]


def test_a_wait_for_nodes_moves_on_the_screen() -> None:
    run = load_text("", "run.yaml", ["data.source.name=digits", "scale.workers=1", "data.executor=inline"]).run
    there = iter([(), (), ({"CPU": 0.0},), ({"CPU": 0.0}, {"CPU": 1.0})])
    told: list[str] = []
    with Pseudoterminal() as terminal, Display(terminal.stream) as display:
        wait_for_room(
            run, "cpu", lambda: next(there), patient=True, grows=False, stopped=lambda: False, say=told.append
        )
        display.close()
    longest, waits = terminal.longest_stand(_found(r"waiting up to 15m for nodes with 1 x \(1 CPUs\): (.*)"))
    assert longest < 2
    # a look every second, from 0 to 3
    assert waits[0] == "0 there"
    assert {"1 there, for 2 s"} <= set(waits) <= {"0 there", "0 there, for 2 s", "1 there, for 2 s", "1 there, for 3 s"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_on_ray_moves_from_its_first_second_to_its_last(tmp_path: Path) -> None:
    """The command on a terminal: what another process does comes through Ray."""
    (tmp_path / "run.yaml").write_text(_CONFIG)
    late = 'augment.train=[{"nets:late": {seconds: 1.5}}]'  # a start may be too fast for a wait to be seen
    words = [sys.executable, "-m", "raycls", "train", "run.yaml", "scale.workers=2", "data.executor=ray", late]
    variables = {**os.environ, "RAY_ADDRESS": ""}
    variables.pop("RAYCLS_WORKDIR", None)
    with Pseudoterminal() as terminal:
        stream = terminal.stream
        done = subprocess.run(words, env=variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False)
    assert done.returncode == 0, terminal.page.text
    assert "workers    2 on Ray" in terminal.page.text
    longest, steps = terminal.longest_stand(_found(r"([1-8])/8 steps .*\n(?!.*train loss)"))
    assert longest < 2
    assert steps == sorted(steps) and len(steps) >= 5
    assert terminal.longest_stand(_found(r"evaluating: (\d+)/20 images"))[1][:1] == ["0"]
    for phase in ("starting Ray", "starting 2 workers", "waiting for data", "leaving Ray"):
        longest, lines = terminal.longest_stand(_found(rf"([|/\\-] {phase}.*)"))
        assert lines and longest < 4, phase  # Ray holds the interpreter for a while when it starts
    assert terminal.page.cursor
