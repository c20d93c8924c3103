"""A run that does not get on: where every thread stands, and an error."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from harness.processes import raycls

from raycls.config.sections.duration import Duration
from raycls.errors import RayclsError
from raycls.run.folder import RunFolder
from raycls.session.hanging.stall import Stall, write_stacks
from raycls.train.ranks import Ranks

_STUCK = """
import os
import time
from torch import distributed, nn


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        last = not distributed.is_initialized() or distributed.get_rank() == distributed.get_world_size() - 1
        stuck = self.calls > 6 if self.training else os.path.exists("PLACE")
        if last and stuck and not os.path.exists("FREE"):
            wait_for_a_train_that_never_comes()
        return self.head(images.mean(dim=(2, 3)))


def wait_for_a_train_that_never_comes():
    time.sleep(600)
"""


def test_stacks_name_every_thread(tmp_path: Path) -> None:
    asleep = threading.Event()

    def a_function_with_a_telling_name() -> None:
        asleep.wait()

    thread = threading.Thread(target=a_function_with_a_telling_name)
    thread.start()
    try:
        where = write_stacks(RunFolder(tmp_path), 3)
    finally:
        asleep.set()
        thread.join()
    text = Path(where).read_text()
    assert where == str(tmp_path / "stacks" / "rank-3.txt")
    assert "a_function_with_a_telling_name" in text and "test_stacks_name_every_thread" in text


def test_told_once_and_only_without_a_beat(tmp_path: Path) -> None:
    ranks, told = Ranks(), []
    with Stall(ranks, RunFolder(tmp_path), Duration(0.4, "s"), told.append):
        for _ in range(30):
            time.sleep(0.02)
            ranks.alive()
        assert not told
        end = time.monotonic() + 20
        while not told and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.6)
    assert len(told) == 1
    error: RayclsError = told[0]
    assert "makes no progress" in error.what and str(tmp_path / "stacks") in str(error.where)
    assert (tmp_path / "stacks" / "rank-0.txt").exists()


def test_a_storage_that_hangs_silences_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raycls.session.hanging.stall._WRITING_SECONDS", 0.2)
    ended, told = threading.Event(), []
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(type(folder.store), "write_bytes", lambda *_: ended.wait(60))
    try:
        with Stall(Ranks(), folder, Duration(0.2, "s"), told.append):
            end = time.monotonic() + 20
            while not told and time.monotonic() < end:
                time.sleep(0.05)
    finally:
        ended.set()
    error: RayclsError = told[0]
    assert "no answer within" in str(error.where)


@pytest.mark.parametrize("timeout", ["off", Duration(0.2, "s")])
def test_nothing_is_told_after_the_end_or_where_it_is_off(tmp_path: Path, timeout: Duration | str) -> None:
    told: list[RayclsError] = []
    with Stall(Ranks(), RunFolder(tmp_path), timeout, told.append):
        time.sleep(0.5 if timeout == "off" else 0.0)
    time.sleep(0.4)
    assert not told


def _command(folder: Path, workers: int, timeout: str) -> list[str]:
    """`raycls train` of a model whose last rank hangs in its seventh step, and in evaluation if asked to."""
    text = _STUCK.replace("PLACE", str(folder / "evaluation-too")).replace("FREE", str(folder / "free"))
    (folder / "stuck.py").write_text(text)
    words = ["data.source.name=digits", "model.name=stuck:Net", f"scale.workers={workers}", "data.image_size=8"]
    (folder / "run.yaml").write_text("")
    return [
        "train",
        "run.yaml",
        *words,
        "data.batch_size=32",
        "train.micro_batches=2",
        f"train.stall_timeout={timeout}",
    ]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_hangs_ends(workers: int, tmp_path: Path) -> None:
    """The thread that hangs cannot be woken: its process ends, and the stacks of all ranks say where each stood."""
    with raycls(tmp_path, *_command(tmp_path, workers, "30s" if workers else "6s")) as command:
        assert command.wait(240) == 1, command.said()
        assert "the run makes no progress: rank" in command.stderr
        assert "Traceback" not in command.stderr
    ranks = max(1, workers)
    texts = [(tmp_path / "runs" / "run" / "stacks" / f"rank-{rank}.txt").read_text() for rank in range(ranks)]
    assert ["wait_for_a_train_that_never_comes" in text for text in texts] == [False] * (ranks - 1) + [True]


@pytest.mark.slow
def test_an_evaluation_that_hangs_ends(tmp_path: Path) -> None:
    (tmp_path / "free").touch()
    with raycls(tmp_path, *_command(tmp_path, 0, "10s"), "train.duration=1ep") as command:
        assert command.wait(120) == 0, command.said()
    (tmp_path / "free").unlink()
    (tmp_path / "evaluation-too").touch()
    with raycls(tmp_path, "eval", "runs/run", name="eval") as command:
        assert command.wait(120) == 1, command.said()
        assert "the run makes no progress: rank 0" in command.stderr
    assert "wait_for_a_train_that_never_comes" in (tmp_path / "runs" / "run" / "stacks" / "rank-0.txt").read_text()
