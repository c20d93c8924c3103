"""Searches on a real Ray: stopped trials give back what they held, killed searches go on as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from contextlib import nullcontext
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from harness.clusters import joined, notify, standing, state
from harness.jobs import weights
from harness.processes import Command, titled
from harness.runs import Site
from harness.searches import SEARCH, Found

from raycls.config.load import load

pytestmark = [pytest.mark.ray]


NETS = '''
"""A network with a choice of how it goes wrong."""

import os

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, trouble):
        super().__init__()
        self.head = nn.Linear(3, num_classes)
        self.trouble = trouble

    def forward(self, images):
        if self.training and self.trouble == "kill":
            os._exit(137)
        if self.training and self.trouble == "raise":
            raise RuntimeError("CUDA out of memory, or whatever else")
        logits = self.head(images.mean((2, 3)))
        return logits * torch.nan if self.trouble == "diverge" else logits
'''


@pytest.fixture(scope="session")
def searched(site: Site) -> Site:
    """The site with a search config."""
    (site.folder / "search.yaml").write_text(SEARCH)
    return site


def reach(found: Found, command: Command, results: int, seconds: float = 150) -> None:
    """Wait until the ledger has that many results."""
    command.until(lambda: len(found.of_kind("result")) >= results, seconds)


@pytest.mark.faults
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_killed_at_three_moments(searched: Site) -> None:
    """SIGKILL of the driver, one trial at a time: decisions, table and winner are the uninterrupted ones."""
    one = ("search", "search.yaml", "search.max_concurrent=1", "search.trials=5")
    with searched.raycls(*one, "run.name=whole") as command:
        assert command.wait(150) == 0, command.said()
        command.assert_gone(10)
    whole, cut = Found.of(searched, "whole"), Found.of(searched, "cut")
    count = len(whole.of_kind("result"))
    finished: dict[str, int] = {}
    for part in (0.2, 0.5, 0.8):
        with searched.raycls(*one, "run.name=cut") as command:
            reach(cut, command, int(count * part) + random.randint(0, count // 6))
            command.kill()
            command.assert_gone(10)
        finished |= {line["trial"]: len(cut.attempts(line["trial"])) for line in cut.of_kind("end")}
    with searched.raycls(*one, "run.name=cut") as command:
        assert command.wait(150) == 0, command.said()
        command.assert_gone(10)
    assert cut.rows == whole.rows
    assert cut.decisions == whole.decisions
    assert {trial: len(cut.attempts(trial)) for trial in finished} == finished, "a trial that had ended was run again"
    assert (cut.folder / "best.yaml").read_text().splitlines()[2:] != []
    with searched.raycls("train", str(whole.folder / "best.yaml"), "scale.workers=0") as command:
        assert command.wait(60) == 0, command.said()
    winner = next(line for line in (whole.folder / "best.yaml").read_text().splitlines() if line.startswith("# Trial"))
    trial = winner.split()[2]
    assert weights(searched.run("whole-best")) == weights(whole.folder / "trials" / trial)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "dashboard",
    [
        pytest.param(False, id="without_a_dashboard", marks=pytest.mark.nightly),
        pytest.param(True, id="with_a_dashboard", marks=pytest.mark.nightly),
    ],
)
def test_stopped_trials_give_back_their_workers(searched: Site, dashboard: bool) -> None:
    """Eight trials of two workers, two at a time, one trial's process killed: without a dashboard and with a second
    Ray beside, where Ray's own cleaner does nothing; and with a dashboard, where it does the same work as ours.
    """
    name = f"nested{dashboard:d}"
    beside = nullcontext() if dashboard else standing(1)
    with beside, standing(3, dashboard=dashboard) as cluster:
        before = state(cluster.environment)
        words = ("search", "search.yaml", "scale.workers=2", "search.max_concurrent=2", f"run.name={name}")
        with searched.raycls(*words, env=cluster.environment) as command:
            reach(Found.of(searched, name), command, 2, 300)
            one = titled(cluster.head.processes(), "ray::ResourceTrainable")[0]
            one.kill()  # what its workers reserved stays behind
            assert command.wait(600) == 0, command.said()
        cluster.assert_idle()
        after = state(cluster.environment)
    found = Found.of(searched, name)
    assert len(found.rows) == 8
    assert "was lost with its process or node" in command.stdout
    # Which trials are stopped follows from the order of the results, and that from the machine: each result is held
    # against the cutoff that was noted for it.
    results = found.of_kind("result")
    behind = {line["trial"] for line in results if line["cutoff"] and line["values"]["top1"] < line["cutoff"]}
    assert behind
    assert {row["trial"] for row in found.rows if row["state"] == "stopped"} == behind
    assert {row["trial"] for row in found.rows if float(row["epochs"]) < 9} == behind
    assert set(after["groups"].values()) <= {"REMOVED"}, after["groups"]
    assert after["available"].get("CPU") == before["available"].get("CPU")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_interrupted_and_gone_on_with(searched: Site) -> None:
    """SIGINT: every trial writes a checkpoint, exit 130; the same command goes on from there."""
    searched.slow(True)
    try:
        with searched.raycls("search", "search.yaml", "run.name=paused", "search.trials=3") as command:
            found = Found.of(searched, "paused")
            reach(found, command, 3)
            command.process.send_signal(signal.SIGINT)
            assert command.wait(60) == 130, command.said()
            command.assert_gone(10)
    finally:
        searched.slow(False)
    left = {line["trial"] for line in found.of_kind("trial")} - {line["trial"] for line in found.of_kind("end")}
    measured = {line["trial"] for line in found.of_kind("result")} & left
    assert measured
    with searched.raycls("search", "search.yaml", "run.name=paused", "search.trials=3") as command:
        assert command.wait(120) == 0, command.said()
    assert [row["state"] for row in found.rows].count("running") == 0
    assert all(found.attempts(trial)[-1]["step"] > 0 for trial in measured)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_population_copies_weights(searched: Site) -> None:
    """After an exploit a trial has the donor's weights, to the byte, and then weights of its own. One place for four
    trials: they take turns of an interval.
    """
    words = ("search", "search.yaml", "run.name=evolved", "search.trials=4", "search.space={}", "train.duration=6ep")
    rates = "search.space={optim.lr: loguniform(1e-4, 0.3), optim.weight_decay: uniform(0, 0.01)}"
    pbt = ("search.scheduler.name=pbt", "search.scheduler.interval=2ep", "search.max_concurrent=1")
    with searched.raycls(*words, rates, *pbt) as command:
        assert command.wait(500) == 0, command.said()
        command.assert_gone(10)
    found = Found.of(searched, "evolved")
    turns = [(name, len(list(group))) for name, group in groupby(line["trial"] for line in found.of_kind("result"))]
    assert [name for name, _ in turns[:4]] == ["0001", "0002", "0003", "0004"]
    assert all(count % 2 == 0 for _, count in turns), turns
    exploits = found.of_kind("exploit")
    assert exploits
    assert [row["state"] for row in found.rows] == ["finished"] * 4
    newest = {line["trial"]: line for line in exploits}
    for trial, line in newest.items():
        taken = json.loads((found.folder / "trials" / trial / "exploit.json").read_text())
        assert taken["done"] and taken["weights"] == line["weights"] and taken["step"] == line["step"]
        assert weights(found.folder / "trials" / trial) != weights(found.folder / "trials" / line["donor"])
        own = load(found.folder / "trials" / trial / "config.yaml").run
        assert own.optim.lr == line["chosen"]["optim.lr"]
    assert not (found.folder / "exploits").exists() or not any((found.folder / "exploits").iterdir())


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_node_joins_and_is_lost(searched: Site) -> None:
    """It takes trials as soon as it is there. When it dies they go on elsewhere from their checkpoints."""
    words = ("search", "search.yaml", "run.name=lost", "search.scheduler.name=none", "search.trials=5")
    found = Found.of(searched, "lost")
    searched.slow(True)
    with (
        standing(1) as cluster,
        searched.raycls(*words, "train.duration=4ep", env=cluster.environment) as command,
    ):
        reach(found, command, 1)
        assert "1 at a time" in command.stdout
        with joined(cluster, 2) as node:
            command.until(lambda: "3 at a time" in command.stdout)
            command.until(lambda: len({line["trial"] for line in found.of_kind("result")}) >= 3)
            node.kill_all()
            searched.slow(False)
            assert command.wait(300) == 0, command.said()
        assert "was lost with its process or node" in command.stdout
        after = state(cluster.environment)
        assert after["available"]["CPU"] == 1
    assert [row["state"] for row in found.rows] == ["finished"] * 5
    again = [trial for row in found.rows if len(found.attempts(trial := row["trial"])) > 1]
    assert again and all(found.attempts(trial)[-1]["step"] > 0 for trial in again)
    first = [(line["trial"], line["step"]) for line in found.of_kind("result")]
    assert len(first) == len(set(first)), "an evaluation was counted twice"


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_node_is_taken_back(searched: Site) -> None:
    """Its trials go on elsewhere from the step at which they heard of it, and none has failed."""
    words = ("search", "search.yaml", "run.name=back", "search.scheduler.name=none", "search.trials=2")
    more = ("search.max_failures=0", "train.duration=4ep", "checkpoint.every=4ep", "evaluate.every=4ep")
    found = Found.of(searched, "back")
    searched.slow(True)
    with (
        standing(1) as cluster,
        joined(cluster, 1, name="spot"),
        searched.raycls(*words, *more, env=cluster.environment) as command,
    ):
        spot = state(cluster.environment)["nodes"]["spot"]
        command.until(lambda: all(searched.step(f"back/trials/000{number}") >= 2 for number in (1, 2)), 150)
        notify(cluster.environment, spot, 30)
        command.until(lambda: "was lost with its process or node" in command.stdout, 60)
        searched.slow(False)
        assert command.wait(200) == 0, command.said()
    assert [row["state"] for row in found.rows] == ["finished"] * 2
    (moved,) = [row["trial"] for row in found.rows if len(found.attempts(row["trial"])) > 1]
    steps = [
        line["step"] for line in map(json.loads, searched.history(f"back/trials/{moved}")) if line["kind"] == "train"
    ]
    assert steps == list(range(1, steps[-1] + 1)), "a step was done again, or left out"


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_bad_trials_are_not_a_dead_search(searched: Site) -> None:
    """One raises, one diverges, one takes its process with it: each is a failed trial, the good one wins."""
    (searched.folder / "nets.py").write_text(NETS)
    words = ("search", "search.yaml", "run.name=bad", "search.space={}", "search.algorithm=grid", "train.duration=2ep")
    space = "search.space={model.args: [{trouble: none}, {trouble: raise}, {trouble: diverge}, {trouble: kill}]}"
    model = ("model.name=nets:Net", "model.args={}", "search.max_failures=1")
    with searched.raycls(*words, space, *model) as command:
        assert command.wait(200) == 0, command.said()
        command.assert_gone(10)
    found = Found.of(searched, "bad")
    assert [row["state"] for row in found.rows] == ["finished", "failed", "failed", "failed"]
    errors = {line["trial"]: line["error"] for line in found.of_kind("end")}
    assert "whatever else" in errors["0002"] and "nets.py" in errors["0002"]
    assert "not finite" in errors["0003"]
    assert "lost" in errors["0004"]
    assert (found.folder / "best.yaml").read_text().startswith("# Trial 0001")


COUNTING = '''
"""An augmentation that changes nothing and notes in `file` each image of the test split, which is brighter than all."""

import os

import numpy as np


def noted(file):
    def look(image):
        if np.asarray(image).min() >= 250:
            with open(file, "a") as notes:
                notes.write(f"{np.asarray(image).tobytes().hex()[:64]}\\n")
        return image

    return look
'''


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_target_is_confirmed_and_killed_and_confirmed(searched: Site) -> None:
    """The third trial reaches the target, the fourth never starts. SIGKILL while the two best are trained anew."""
    (searched.folder / "counting.py").write_text(COUNTING)
    arrays: dict[str, Any] = dict(np.load(searched.folder / "images.npz"))
    bright = np.random.default_rng(0).integers(250, 256, (24, 12, 12, 3), np.uint8)
    np.savez(searched.folder / "tested.npz", **arrays, test_images=bright, test_labels=np.arange(24) % 4)
    notes = searched.folder / "notes"
    words = ["search", "search.yaml", "run.name=confirmed", "search.space={}", "search.algorithm=grid"]
    words += ["search.space={optim.lr: [0.0001, 0.0002, 0.1, 0.09]}", "search.max_concurrent=1", "search.target=0.6"]
    words += ["train.duration=3ep", "search.scheduler={name: none}", "search.confirm.seeds=2"]
    words += ["data.source.path=tested.npz", f"augment.eval=[{{'counting:noted': {{file: {notes}}}}}]"]
    found = Found.of(searched, "confirmed")
    with searched.raycls(*words) as command:
        first = lambda: len(found.of_kind("test")) == 1 and len(found.of_kind("trial")) >= 5  # noqa: E731
        command.until(first, 300)
        command.kill()
        command.assert_gone(30)
    assert [line["reason"] for line in found.of_kind("end_of_search")] == ["target"]
    assert [row["trial"] for row in found.rows] == ["0001", "0002", "0003"]
    scored = {line["trial"]: len(found.attempts(line["trial"])) for line in found.of_kind("test")}
    with searched.raycls(*words) as command:
        assert command.wait(300) == 0, command.said()
        command.assert_gone(30)
    assert {trial: len(found.attempts(trial)) for trial in scored} == scored, "a model was trained again"
    assert [row["trial"] for row in found.rows] == ["0001", "0002", "0003"]

    tests = {line["trial"]: line["values"]["top1"] for line in found.of_kind("test")}
    assert len(found.of_kind("test")) == len(tests) == 4
    rival = next(trial for trial in ("0001", "0002") if f"{trial}-s1" in tests)
    assert sorted(tests) == sorted(f"{trial}-s{seed}" for trial in ("0003", rival) for seed in (1, 2))
    seen = Counter(notes.read_text().split())
    assert len(seen) == 24 and set(seen.values()) == {4}, "each test image once for each of the four models"

    one, two = (tests[f"0003-s{seed}"] for seed in (1, 2))
    paired = [tests[f"0003-s{seed}"] - tests[f"{rival}-s{seed}"] for seed in (1, 2)]
    mean, half = (one + two) / 2, 12.7062 * abs(one - two) / 2  # Student's t with one degree of freedom; s / sqrt(2)
    assert "test top1; the test split was scored once per model" in command.stdout
    assert f"0003: n 2, mean {mean:.4f}, 95 % interval {mean - half:.4f} to {mean + half:.4f}" in command.stdout
    assert f"0003 - {rival}, seed by seed: n 2, mean {sum(paired) / 2:+.4f}, 95 % interval" in command.stdout
    with searched.raycls(*words) as command:
        assert command.wait(60) == 0, command.said()
    assert "starting Ray" not in command.stdout
    assert len(notes.read_text().split()) == 4 * 24


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_ctrl_c_twice_and_a_budget_that_is_raised(searched: Site) -> None:
    """The second Ctrl-C ends at once and leaves nothing; a budget that is used up pauses with exit 4; both go on."""
    words = ("search", "search.yaml", "run.name=hurried", "search.trials=3", "search.scheduler.name=none")
    found = Found.of(searched, "hurried")
    searched.slow(True)
    try:
        with searched.raycls(*words, "train.duration=3ep") as command:
            reach(found, command, 1, 300)
            command.process.send_signal(signal.SIGINT)
            command.until(lambda: "stopping: every trial" in command.stdout)
            command.process.send_signal(signal.SIGINT)
            assert command.wait(20) == 130, command.said()
            command.assert_gone(30)
        used = found.lines[-1]["time"] - found.lines[0]["time"]
        with searched.raycls(*words, "train.duration=3ep", f"search.budget={used + 10:.1f}s") as command:
            assert command.wait(400) == 4, command.said()
            command.assert_gone(30)
    finally:
        searched.slow(False)
    assert "search.budget is used up: raise it and rerun" in command.stdout
    assert not found.of_kind("end_of_search")
    assert [line["reason"] for line in found.of_kind("pause")] == ["budget"]  # the second Ctrl-C left no time for one
    with searched.raycls(*words, "train.duration=3ep", f"search.budget={used + 11:.1f}s") as command:
        assert command.wait(400) == 4, command.said()
    with searched.raycls(*words, "train.duration=3ep", "search.budget=2h") as command:
        assert command.wait(400) == 0, command.said()
        command.assert_gone(30)
    assert [row["state"] for row in found.rows] == ["finished"] * 3
    measured = [(line["trial"], line["step"]) for line in found.of_kind("result")]
    assert len(measured) == len(set(measured)) == 9
