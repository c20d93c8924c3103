"""A trial in its process, asked as Tune asks it, without Tune."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.jobs import write_arrays
from harness.plugins import user_module

from raycls.config.load import load_text, to_dict
from raycls.data.source import open_dataset
from raycls.launch import group
from raycls.launch.trainer import make_job
from raycls.run import checkpoint
from raycls.run.folder import RunFolder
from raycls.run.history import read
from raycls.run.storage.local import LocalFiles
from raycls.search.board import Task
from raycls.session import training
from raycls.session.job import World
from raycls.session.prepare import prepare
from raycls.session.recording import recorder
from raycls.train import ranks
from raycls.train.ranks import Ranks
from raycls.train.reasons import Reason
from raycls.tune import trial
from raycls.tune.donors import keep, kept
from raycls.tune.trial import Shared, TrialProcess, set_aside_other, trial_run

_STEPS = 3
"""Of an epoch: 40 images in batches of 16."""
_BEFORE: set[threading.Thread] = set()
"""The threads there were when the test began."""


class NoWatch:
    """Nobody asks all trials to stop."""

    def __init__(self, mailbox: Any) -> None:
        assert mailbox == "mailbox"

    def asked(self) -> Reason:
        return Reason.NONE

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _BEFORE.clear()
    _BEFORE.update(threading.enumerate())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(group, "StopWatch", NoWatch)
    monkeypatch.setattr(trial, "_noticed", lambda: False)
    monkeypatch.setattr(recorder, "svg", lambda lines, metrics: b"")  # curves of thirty trials that nobody looks at
    arrays = write_arrays(tmp_path / "images.npz", train=40, val=12)
    found = dict(np.load(arrays))
    np.savez(arrays, **found, test_images=found["val_images"], test_labels=found["val_labels"])
    with user_module(tmp_path, "faulty", _FAULTY):
        before = dict(os.environ)
        yield
        os.environ.clear()
        os.environ.update(before)


_FAULTY = """
from raycls.models.networks.tiny import TinyCnn


class Net(TinyCnn):
    passes = 0

    def forward(self, images):
        self.passes += self.training
        if self.passes > 5:
            raise ZeroDivisionError("five are enough")
        return super().forward(images)


class Leaver(TinyCnn):
    def forward(self, images):
        raise SystemExit(3)
"""


def base(*overrides: str) -> Any:
    words = [
        "run.name=search",
        "data.source={name: arrays, path: images.npz}",
        "data.image_size=12",
        "data.batch_size=16",
        "augment={train: [horizontal_flip], eval: []}",
        "model={name: tiny_cnn, args: {width: 4}}",
        "train={duration: 4ep, amp: off, reduction: exact}",
        "evaluate.every=1ep",
        "track.log_every=1st",
        "search.space={optim.lr: [0.01, 0.02, 0.05]}",
    ]
    return load_text("", "search.yaml", [*words, *overrides]).run


def shared(*overrides: str) -> Shared:
    run = base(*overrides)
    trials = RunFolder.at("runs", "search").store.sub("trials").uri
    return Shared(to_dict(run), open_dataset(run.data), trials, "cpu", os.getcwd(), ("raycls", "search"), "mailbox")


def task(number: int = 1, lr: float = 0.02, donor: str = "", **more: Any) -> dict[str, Any]:
    """What Tune hands a trial."""
    name = more.pop("name", f"{number:04d}")
    return {"task": json.dumps(asdict(Task(name, number, {"optim.lr": lr}, **more))), "donor": donor}


def begin(given: Shared, config: dict[str, Any]) -> TrialProcess:
    process = TrialProcess.__new__(TrialProcess)  # its own start belongs to Tune
    process.setup(config, shared=given)
    return process


def step(process: TrialProcess) -> dict[str, Any]:
    """The next thing that the trial says."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        result = process.step()
        if result["record"]:
            record = json.loads(result["record"])
            assert result.get("done", False) == (record["kind"] == "end")
            return record
    raise AssertionError("the trial says nothing")


def whole(process: TrialProcess) -> list[dict[str, Any]]:
    """All that it says, to its end."""
    found = [step(process)]
    while found[-1]["kind"] != "end":
        found.append(step(process))
    return found


def steps(found: list[dict[str, Any]]) -> list[int]:
    return [record["step"] for record in found if record["kind"] == "evaluation"]


def folder(name: str = "0001") -> RunFolder:
    return RunFolder.at("runs/search/trials", name)


def no_thread() -> bool:
    """Whether all threads of trials are gone; one may be at its very end. What reads objects may stay."""
    end = time.monotonic() + 5
    while any(thread.name.startswith("raycls-") and thread not in _BEFORE for thread in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_evaluations_arrive_one_by_one_and_training_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    process = begin(shared(), task())
    for epoch in range(1, 5):
        record = step(process)
        assert (record["kind"], record["step"], record["epoch"]) == ("evaluation", _STEPS * epoch, epoch)
        assert record["seconds"] > 0
        assert {"top1", "top5", "loss", "f1_macro", "f1_weighted"} <= record["values"].keys()
        assert not {"time", "attempt", "seconds", "step"} & record["values"].keys()
        assert record["step"] in folder().steps() or epoch == 4  # others may go on from what was reported
        time.sleep(0.05)
        assert max(line["step"] for line in read(folder())) == record["step"]
    assert step(process) == {"kind": "end", "state": "finished"}
    process.cleanup()
    assert no_thread()
    assert folder().read_json("result.json")["state"] == "done"


def test_a_trial_is_the_run_that_train_would_do(tmp_path: Path) -> None:
    process = begin(shared(), task(lr=0.05))
    assert whole(process)[-1]["state"] == "finished"
    process.cleanup()
    run = base("optim.lr=0.05", "search.space={}", "run.name=alone", "scale.workers=0")
    alone = prepare(run, new=False, command=["raycls", "train"], say=lambda text: None)
    training.train(make_job(run, alone.folder, alone.plan, alone.dataset, "cpu"), World())
    trained = (tmp_path / "runs" / name for name in ("search/trials/0001", "alone"))
    first, second = ((path / "model" / "model.safetensors").read_bytes() for path in trained)
    assert first == second


def test_a_trial_that_is_stopped_ends_at_that_evaluation() -> None:
    process = begin(shared(), task())
    step(process)
    record = step(process)
    process.cleanup()
    assert no_thread()
    assert (record["step"], folder().steps()[-1]) == (2 * _STEPS, 2 * _STEPS)
    assert max(line["step"] for line in read(folder())) == 2 * _STEPS
    assert folder().read_json("result.json")["state"] == "stopped"
    assert not folder().store.exists("model/model.safetensors")


def test_one_process_has_one_trial_after_another() -> None:
    given = shared()
    process = begin(given, task(1))
    step(process)
    assert process.reset_config(task(2, 0.05))  # the first one was stopped
    second = whole(process)
    assert process.reset_config(task(3, 0.05))  # after an end
    third = whole(process)
    process.cleanup()
    assert no_thread()
    assert steps(second) == steps(third) == [3, 6, 9, 12]
    assert [one.get("values") for one in second] == [one.get("values") for one in third]
    assert folder("0001").read_json("result.json")["state"] == "stopped"


def test_what_was_evaluated_before_a_restart_is_told_again() -> None:
    given = shared()
    process = begin(given, task())
    first = [step(process), step(process)]
    process.cleanup()
    process = begin(given, task())
    again = whole(process)
    process.cleanup()
    assert steps(again) == [3, 6, 9, 12]
    assert [record["values"] for record in again[:2]] == [record["values"] for record in first]
    assert all(record["seconds"] > 0 for record in again[:-1])
    process = begin(given, task())  # killed between its end and the line of the search
    third = whole(process)
    process.cleanup()
    for record in (*again, *third):
        record.pop("seconds", None)
    assert third == again
    assert len(folder().attempts()) == 2  # it was not trained again


def test_a_trial_whose_node_had_its_notice_saves_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the step that it was in, and no step is done again."""
    process = begin(shared("evaluate.every=2ep", "checkpoint.every=2ep"), task())
    left: list[int] = []
    monkeypatch.setattr(ranks, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(trial, "_noticed", lambda: any(line["step"] == 4 for line in read(folder())))
    monkeypatch.setattr(trial, "_leave", lambda: left.append(folder().steps()[-1]))
    assert [record["kind"] for record in whole(process)] == ["leaving", "end"]
    assert left == [4]
    monkeypatch.setattr(trial, "_noticed", lambda: False)
    process.cleanup()
    process = begin(shared("evaluate.every=2ep", "checkpoint.every=2ep"), task())
    assert steps(whole(process)) == [6, 12]
    process.cleanup()
    done = [line["step"] for line in read(folder()) if line["kind"] == "train"]
    assert done == list(range(1, 13))
    assert [attempt.step for attempt in folder().attempts()] == [0, 4]


def test_a_past_evaluation_may_be_the_one_that_stops_it() -> None:
    given = shared()
    process = begin(given, task())
    step(process), step(process)
    process.cleanup()
    process = begin(given, task())
    assert step(process)["step"] == 3
    process.cleanup()  # as Tune does where the board says stop
    assert no_thread()
    assert folder().steps()[-1] == 2 * _STEPS


def test_an_error_of_a_plug_in_is_the_end_of_its_trial_alone() -> None:
    given = shared(
        "model={name: 'faulty:Net', args: {width: 4}}", "search.space={model.name: ['faulty:Net', tiny_cnn]}"
    )
    process = begin(given, task())
    *evaluations, end = whole(process)
    assert steps(evaluations) == [3]
    assert (end["kind"], end["state"]) == ("end", "failed")
    assert "ZeroDivisionError: five are enough" in end["error"]
    assert "faulty.py:11" in end["error"]
    assert process.reset_config({"task": json.dumps(asdict(Task("0002", 2, {"model.name": "tiny_cnn"})))})
    assert whole(process)[-1] == {"kind": "end", "state": "finished"}
    process.cleanup()
    assert no_thread()


@pytest.mark.faults
def test_a_full_disk_is_told_apart_from_a_bad_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: LocalFiles, name: str, data: bytes, atomic: bool) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalFiles, "write", write)
    for number, full in ((errno.ENOSPC, True), (errno.EACCES, False)):
        (end,) = whole(begin(shared(), task()))
        assert (end["state"], end["full"]) == ("failed", full)
        assert os.strerror(number) in end["error"]


def test_a_folder_with_another_run_is_set_aside() -> None:
    given = shared("train.duration=1ep")
    whole(begin(given, task(1, lr=0.02)))
    run = base("train.duration=1ep")
    same, other = (Task("0001", 1, {"optim.lr": lr}) for lr in (0.02, 0.05))
    assert set_aside_other(run, same, given.trials) is None
    assert set_aside_other(base("train.duration=1ep", "checkpoint.keep=7"), same, given.trials) is None
    moved = set_aside_other(run, other, given.trials)
    assert moved is not None and moved.endswith("0001.old-1")
    assert not folder().store.exists()
    assert set_aside_other(run, other, given.trials) is None


def test_a_plug_in_that_leaves_python_is_heard_of_too() -> None:
    process = begin(shared("model={name: 'faulty:Leaver', args: {width: 4}}"), task())
    (end,) = whole(process)
    process.cleanup()
    assert end["state"] == "failed"
    assert "SystemExit: 3" in end["error"]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [({"optim.lr": -1.0}, "optim.lr"), ({"model.args.width": 1}, "width must be 2 or more")],
)
def test_values_that_cannot_be_trained_are_a_failed_trial(chosen: dict[str, Any], words: str) -> None:
    process = begin(shared(), {"task": json.dumps(asdict(Task("0001", 1, chosen)))})
    (end,) = whole(process)
    process.cleanup()
    assert end["state"] == "failed"
    assert words in end["error"]


def test_a_process_is_left_as_it_was_found() -> None:
    given = shared("scale.threads=2", "train.duration=1ep")
    whole(begin(given, task(1)))  # what is set once per process

    def found() -> tuple[Any, ...]:
        generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
        flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.is_grad_enabled()
        return torch.get_num_threads(), generators, flags, dict(os.environ), Path.cwd()

    torch.manual_seed(5)
    before = found()
    process = begin(given, task(2))
    whole(process)
    process.cleanup()
    assert found() == before
    assert no_thread()
    with torch.no_grad():  # of this thread, and not of the one that trains
        process = begin(given, task(3))
        whole(process)
        process.cleanup()
    assert folder("0003").read_json("result.json")["final"] == folder("0002").read_json("result.json")["final"]


def test_a_trial_starts_in_the_folder_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = shared()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where Tune puts a process
    process = begin(given, task())
    assert whole(process)[-1]["state"] == "finished"
    process.cleanup()
    assert Path.cwd() == tmp_path


def test_a_confirmation_is_scored_once_on_the_test_split() -> None:
    given = shared("search.confirm.seeds=2")
    confirm = {"name": "0001-s7", "seed": 7, "phase": "confirm"}
    process = begin(given, task(**confirm))
    *_, last, test, _ = found = whole(process)
    process.cleanup()
    assert [record["kind"] for record in found] == ["evaluation"] * 4 + ["test", "end"]
    assert test["values"]["top1"] == last["values"]["top1"]  # the same images, here
    assert load_text(folder("0001-s7").store.read_bytes("config.yaml").decode(), "config.yaml").run.run.seed == 7
    for tested, kinds in ((False, ["test", "end"]), (True, ["end"])):  # killed before, and after, the line of the score
        process = begin(given, task(**confirm, tested=tested))
        assert [record["kind"] for record in whole(process)] == ["evaluation"] * 4 + kinds
        process.cleanup()


def test_a_trial_goes_on_from_the_weights_of_another() -> None:
    given = shared("search.scheduler={name: pbt}")
    search = RunFolder.at("runs", "search")
    first = begin(given, task(1, 0.01))
    step(first), step(first)
    first.cleanup()  # a process has one trial at a time, here too
    second = begin(given, task(2, 0.05))
    step(second)
    sha = keep(search, "0001", 2 * _STEPS, "0002", 1)
    assert sha
    donor = {"checkpoint": search.store.sub(kept("0002", 1)).uri, "step": 2 * _STEPS, "count": 1}
    assert second.reset_config(task(2, 0.02, json.dumps(donor), exploits=1))
    found = whole(second)
    second.cleanup()
    assert folder("0002").read_json("exploit.json")["weights"] == sha
    assert steps(found) == [3, 9, 12]  # its own past, then from where the donor was
    assert found[-1]["state"] == "finished"
    rates = [line["lr"] for line in read(folder("0002")) if line["kind"] == "train" and line["step"] > 2 * _STEPS]
    assert rates and all(rate <= 0.02 for rate in rates)


def test_the_config_of_a_trial() -> None:
    one = trial_run(base("data.executor=auto"), Task("0003", 3, {"optim.lr": 0.05}), "runs/search/trials")
    assert (one.run.name, one.run.storage, one.run.seed) == ("0003", "runs/search/trials", 0)
    assert (one.optim.lr, one.data.executor, one.search.space) == (0.05, "inline", {})
    assert trial_run(base(), Task("0003-s4", 3, {}, seed=4), "runs").run.seed == 4
    assert trial_run(base("data.executor=processes"), Task("0003", 3, {}), "runs").data.executor == "processes"
    nested = base("scale.workers=2", "train.micro_batches=2", "data.executor=ray")
    assert trial_run(nested, Task("0003", 3, {}), "runs").data.executor == "ray"
    evolving = trial_run(base("search.scheduler={name: pbt}", "evaluate.every=2ep"), Task("0003", 3, {}), "runs")
    assert str(evolving.checkpoint.every) == "2ep"


def test_a_signal_in_an_evaluation_leaves_it_and_the_next_start_does_it_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the history says of that evaluation is of a start whose checkpoint was lost: it is not told."""
    given, calls = shared("evaluate.batch_size=4"), [0]
    original = Ranks.go_on

    def go_on(ranks: Ranks, *error: Any) -> None:
        calls[0] += 1
        original(ranks, *error)

    monkeypatch.setattr(Ranks, "go_on", go_on)
    monkeypatch.setattr(NoWatch, "asked", lambda watch: Reason.SIGTERM if calls[0] == 5 else Reason.NONE)
    first = whole(begin(given, task(1)))
    assert [record["kind"] for record in first] == ["evaluation", "end"]
    assert (first[0]["step"], first[1]["state"]) == (_STEPS, "stopped")
    folder = RunFolder.at(given.trials, "0001")
    assert (folder.steps()[-1], checkpoint.load(folder, 2 * _STEPS).trees["train"]["unevaluated"]) == (6, True)
    (line,) = (line for line in read(folder) if line["kind"] == "evaluate")
    folder.store.append_line(folder.HISTORY, json.dumps({**line, "step": 2 * _STEPS, "top1": 0.99}))

    again = whole(begin(given, task(1)))
    undisturbed = whole(begin(given, task(2)))
    facts = [
        [(one["step"], one["values"]) for one in told if one["kind"] == "evaluation"] for told in (again, undisturbed)
    ]
    assert [step for step, _ in facts[0]] == [3, 6, 9, 12]
    assert facts[0] == facts[1]
