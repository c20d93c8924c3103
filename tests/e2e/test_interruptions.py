"""Runs that are killed or stopped, and go on: in the end they are the run that nobody touched."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

import pytest
from harness.processes import Command, titled
from harness.runs import Foreign, Site

from raycls.run.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.faults]

GONE = 10.0
"""Seconds within which a private Ray has to follow its driver, on a busy machine."""


@pytest.fixture
def slow(site: Site) -> Iterator[None]:
    """Training that lasts until the test has done what it wants to do."""
    site.slow(True)
    yield
    site.slow(False)


def begin(site: Site, name: str, workers: int, first: int, last: int, *options: str) -> Command:
    """Start the run, or go on with it, and wait for a random step between `first` and `last`."""
    decoding = ["data.executor=ray"] if workers else []
    command = site.raycls("train", "small.yaml", f"run.name={name}", f"scale.workers={workers}", *decoding, *options)
    step = random.randint(first, last)
    try:
        if workers:
            command.until(lambda: bool(titled(command.processes(), "ray::RayTrainWorker")))
        command.until(lambda: site.step(name) >= step)
    except BaseException:
        command.__exit__()
        raise
    return command


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_three_times_and_stopped_twice(site: Site, foreign: Foreign, slow: None) -> None:
    """A worker killed, the driver killed, everything killed, SIGINT, SIGTERM: each time another world goes on."""
    name = "killed"
    with begin(site, name, 2, 8, 14) as command:
        command.until(lambda: (site.run(name) / "checkpoints" / "step-00000007" / "manifest.json").exists())
        random.choice(titled(command.processes(), "ray::RayTrainWorker")).kill()
        command.until(lambda: len(site.attempts(name)) == 2)
        assert site.attempts(name)[1]["step"] >= 7
        step = random.randint(17, 24)
        command.until(lambda: site.step(name) >= step)
        assert "workers were lost; resuming from step" in command.stdout
        assert not command.stderr
        command.kill()
        seconds = command.assert_gone(GONE)
        print(f"a private Ray was gone {seconds:.1f} s after its driver was killed")
        assert not command.leftovers()

    with begin(site, name, 1, 27, 36) as command:
        command.kill_all()
        command.assert_gone(GONE)
        remains = command.leftovers()

    reached = interrupted(site, name, 2, 42, signal.SIGINT)
    assert not any(folder.exists() for folder in remains)  # the start after a kill tidies up
    assert site.attempts(name)[-1]["step"] > 7
    assert interrupted(site, name, 0, reached + 4, signal.SIGTERM) > reached
    assert site.attempts(name)[-1]["step"] == reached

    site.slow(False)
    words = ("train", "small.yaml", f"run.name={name}", "scale.workers=3")
    with site.raycls(*words, env=foreign.environment) as command:
        assert command.wait(200) == 0, command.said()
    assert [attempt["workers"] for attempt in site.attempts(name)] == [2, 2, 1, 2, 1, 3]
    site.assert_same(name)
    with site.raycls("ledger", name) as command:
        assert command.wait(60) == 0, command.said()
        assert command.stdout.startswith("exact: 80 steps, 5 whole epochs of 1003 samples")


def interrupted(site: Site, name: str, workers: int, first: int, number: signal.Signals) -> int:
    """Interrupt the run once it has done `first` steps; the step that it can go on from."""
    with begin(site, name, workers, first, first + 6) as command:
        before = site.step(name)
        command.process.send_signal(number)
        assert command.wait(40) == 128 + number, command.said()
        command.assert_gone(5)
        assert not command.leftovers()
        assert "stopped after a checkpoint" in command.stdout
        assert not command.stderr
    reached = site.step(name)
    assert reached >= before
    assert (site.run(name) / "checkpoints" / f"step-{reached:08d}" / "manifest.json").exists()
    assert not (site.run(name) / "model").exists()
    return reached


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_fast_reduction_killed_and_resumed_on_as_many_workers(site: Site, slow: None) -> None:
    fast = "train.reduction=fast"
    with begin(site, "fast-killed", 2, 10, 30, fast) as command:
        command.kill_all()
        command.assert_gone(GONE)
    site.slow(False)
    for name in ("fast-killed", "fast"):
        with site.raycls("train", "small.yaml", f"run.name={name}", "scale.workers=2", fast) as command:
            assert command.wait(200) == 0, command.said()
        assert RunFolder(site.run(name)).read_json(RunFolder.PLAN)["reduction"] == "fast"
    assert [attempt["workers"] for attempt in site.attempts("fast-killed")] == [2, 2]
    assert site.attempts("fast-killed")[1]["step"] >= 7
    assert len(site.attempts("fast")) == 1
    site.assert_same("fast-killed", "fast")


def test_second_signal_ends_at_once(site: Site) -> None:
    """While Ray is starting there is no step to finish yet: the first signal waits, the second one does not."""
    with starting(site, "twice") as command:
        command.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert command.process.poll() is None
        # While Ray waits for its server no Python runs: a second signal then is one with the first.
        again = time.monotonic() + 20
        while command.process.poll() is None and time.monotonic() < again:
            command.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert command.wait(2) == 130
        command.assert_gone(GONE)
        assert not command.leftovers()


def test_sigterm_while_ray_starts(site: Site) -> None:
    with starting(site, "early") as command:
        command.process.send_signal(signal.SIGTERM)
        assert command.wait(60) == 143, command.said()
        command.assert_gone(GONE)
        assert not command.leftovers()
        assert "stopped before the first step" in command.stdout
        assert not command.stderr


def starting(site: Site, name: str) -> Command:
    """A run whose private Ray has begun to start."""
    command = site.raycls("train", "small.yaml", f"run.name={name}", "scale.workers=2")
    command.until(lambda: bool(titled(command.processes(), "gcs_server")))
    return command


_WAITING = """
import os
import time
from pathlib import Path

from torch import nn


class Net(nn.Module):
    # Says that it computes, and takes its time, while the file `waits` is there.
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        folder = Path(__file__).parent
        if not self.training and (folder / "waits").exists():
            (folder / "computes").touch()
            time.sleep(1)
        return self.head(images.mean((2, 3)))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_evaluation_whose_worker_is_killed_counts_the_same(site: Site) -> None:
    (site.folder / "waiting.py").write_text(_WAITING)
    model = ("model.name=waiting:Net", "model.args={}", "train.duration=1ep")
    with site.raycls("train", "small.yaml", "run.name=waiting", "scale.workers=0", *model) as command:
        assert command.wait(120) == 0, command.said()
    words = ("eval", "runs/waiting", "--split", "train", "--json")
    with site.raycls(*words, "scale.workers=0") as command:
        assert command.wait(60) == 0, command.said()
        undisturbed = command.stdout
    (site.folder / "waits").touch()
    with site.raycls(*words, "scale.workers=2", "scale.max_failures=1") as command:
        command.until((site.folder / "computes").exists)
        random.choice(titled(command.processes(), "ray::RayTrainWorker")).kill()
        (site.folder / "waits").unlink()
        assert command.wait(200) == 0, command.said()
        assert command.stdout == undisturbed
        assert "workers were lost: looking for room for others" in command.stderr
        command.assert_gone(GONE)
