"""Weights that are taken over: the donor's to the byte, whenever the process is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import CheckpointError, LaunchError
from raycls.run import checkpoint_files
from raycls.run.checkpoint import commit, newest
from raycls.run.folder import RunFolder
from raycls.run.snapshot import Snapshot, snapshot
from raycls.run.storage.lock import Lock
from raycls.run.storage.store import Store
from raycls.tune import donors
from raycls.tune.donors import keep, kept, take_over

pytestmark = pytest.mark.faults

_CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"})


def state(step: int, value: float) -> Snapshot:
    return snapshot(step, {"model": {"weight": torch.full((4,), value)}, "train": {"step": step, "best": value}})


def run(lr: float) -> Run:
    return load_text("", "trial.yaml", ["run.name='0001'", f"optim.lr={lr}"]).run


def search(base: Path) -> RunFolder:
    """A search with two trials: the first came to step 20, its donor, with other weights, to step 10."""
    folder = RunFolder(base / "search")
    first, donor = (trial(folder, name) for name in ("0001", "0002"))
    for step in (5, 10, 20):
        commit(first, state(step, 1.0 + step), keep=2, best={"step": step, "metric": "top1", "value": 0.1})
    commit(donor, state(10, 7.0), keep=2, best={"step": 10, "metric": "top1", "value": 0.9})
    first.write_json(RunFolder.RESULT, {"state": "stopped"})
    # what a kill while a checkpoint was written may have left, too
    for leftover in (".replaced-step-00000020", ".step-00000030.77"):
        shutil.copytree(first.path(first.checkpoint(20)), first.path(f"checkpoints/{leftover}"))  # type: ignore[arg-type]
    shutil.copytree(first.path(first.checkpoint(20)), first.path(first.checkpoint(30)))  # type: ignore[arg-type]
    first.store.delete(f"{first.checkpoint(30)}/manifest.json")
    return folder


def trial(folder: RunFolder, name: str) -> RunFolder:
    return RunFolder(folder.store.sub("trials").sub(name))


def donor_of(folder: RunFolder, count: int = 1, step: int = 10) -> dict[str, Any]:
    return {"checkpoint": folder.store.sub(kept("0001", count)).uri, "step": step, "count": count}


def fail(text: str) -> None:
    raise AssertionError(text)


def files(folder: RunFolder, step: int) -> dict[str, bytes]:
    name = folder.checkpoint(step)
    return {file: folder.store.read_bytes(f"{name}/{file}") for file in folder.store.list(name)}


def test_the_donor_may_go_on_meanwhile(tmp_path: Path) -> None:
    folder = search(tmp_path)
    donor = trial(folder, "0002")
    before = files(donor, 10)
    sha = keep(folder, "0002", 10, "0001", 1)
    assert (
        sha == checkpoint_files.manifest(donor.store, donor.checkpoint(10), 10)["files"]["model.safetensors"]["sha256"]
    )
    donor.store.delete_tree("checkpoints")
    take_over(trial(folder, "0001"), run(0.3), donor_of(folder))
    first = trial(folder, "0001")
    assert files(first, 10) == before
    assert first.read_json("exploit.json")["weights"] == sha
    taken(folder)


def taken(folder: RunFolder) -> None:
    """Trial 0001 as it is when it goes on: with the donor's weights and nothing of its own, under the new config."""
    first = trial(folder, "0001")
    found = newest(first, on_bad=fail)
    assert found is not None and found.step == 10
    assert torch.equal(found.trees["model"]["weight"], torch.full((4,), 7.0))
    assert first.store.list("checkpoints") == ["step-00000010"]
    assert load_text(first.store.read_bytes("config.yaml").decode(), "config.yaml").run == run(0.3)
    assert not first.store.exists(RunFolder.RESULT)
    assert (first.read_json(RunFolder.BEST) or {"value": 0.9})["value"] == 0.9  # no longer its own
    assert folder.store.list("exploits") == []
    first.begin_attempt(10, workers=1)
    assert not [name for name in first.store.list() if name.endswith(".tmp")]


def test_a_kill_at_any_change_leaves_a_trial_that_takes_over(tmp_path: Path) -> None:
    def act(folder: RunFolder) -> None:
        take_over(trial(folder, "0001"), run(0.3), donor_of(folder))

    def prepare(base: Path) -> RunFolder:
        folder = search(base)
        assert keep(folder, "0002", 10, "0001", 1)
        return folder

    for folder in killed_everywhere(tmp_path, prepare, act, least=25):
        act(folder)  # the search goes on, and hands the same donor to the trial
        taken(folder)
        first = trial(folder, "0001")
        commit(first, state(15, 8.0), keep=1)
        act(folder)  # once more, after a later kill: the exploit was done
        found = newest(first, on_bad=fail)
        assert found is not None and found.step == 15


def test_a_kill_at_any_change_of_keeping_leaves_nothing_half(tmp_path: Path) -> None:
    def act(folder: RunFolder) -> None:
        assert keep(folder, "0002", 10, "0001", 1)

    for folder in killed_everywhere(tmp_path, search, act, least=10):
        other = trial(folder, "0003")
        commit(other, snapshot(30, {"model": {"other": torch.ones(2)}}), keep=1)
        assert keep(folder, "0003", 30, "0001", 1)  # meanwhile another one is the best
        place = kept("0001", 1)
        assert checkpoint_files.is_good(folder.store, place, 30)
        assert folder.store.list(place) == ["manifest.json", "model.json", "model.safetensors"]


def test_what_is_not_there_is_not_kept(tmp_path: Path) -> None:
    folder = search(tmp_path)
    assert keep(folder, "0002", 15, "0001", 1) == ""
    assert keep(folder, "0009", 10, "0001", 1) == ""
    path = trial(folder, "0002").path("checkpoints/step-00000010/model.safetensors")
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert keep(folder, "0002", 10, "0001", 1) == ""
    assert folder.store.list("exploits") == []


@pytest.mark.parametrize("lost", ["model.safetensors", "manifest.json", "all"])
def test_a_checkpoint_that_the_donor_deletes_in_that_moment_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    folder = search(tmp_path)
    verify = checkpoint_files.verify

    def verify_then_lose(store: Store, name: str, step: int) -> dict[str, Any]:
        found = verify(store, name, step)
        store.delete_tree(name if lost == "all" else f"{name}/{lost}")
        return found

    monkeypatch.setattr(checkpoint_files, "verify", verify_then_lose)
    assert keep(folder, "0002", 10, "0001", 1) == ""


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "train.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_copy_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    folder = search(tmp_path)
    keep(folder, "0002", 10, "0001", 1)
    file = f"{kept('0001', 1)}/{name}"
    data = folder.store.read_bytes(file)
    if damage == "delete":
        folder.store.delete(file)
    else:
        folder.store.write_bytes(file, data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    for _ in range(2):  # the second time it is still refused, and not taken for done
        with pytest.raises(CheckpointError, match="cannot be used"):
            take_over(trial(folder, "0001"), run(0.3), donor_of(folder))


def test_the_next_exploit_is_another_one(tmp_path: Path) -> None:
    folder = search(tmp_path)
    first, third = trial(folder, "0001"), trial(folder, "0003")
    keep(folder, "0002", 10, "0001", 1)
    take_over(first, run(0.3), donor_of(folder, 1))
    commit(third, state(40, 9.0), keep=1)
    keep(folder, "0003", 40, "0001", 2)
    take_over(first, run(0.4), donor_of(folder, 2, 40))
    found = newest(first, on_bad=fail)
    assert found is not None and found.step == 40
    take_over(first, run(0.3), donor_of(folder, 1))  # an order from before
    assert first.steps() == [40]


def test_nobody_takes_over_while_the_trial_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(donors, "HANDOVER_SECONDS", 0.05)
    folder = search(tmp_path)
    keep(folder, "0002", 10, "0001", 1)
    first = trial(folder, "0001")
    before = first.steps()
    with Lock(first, "train"), pytest.raises(LaunchError):
        take_over(first, run(0.3), donor_of(folder))
    assert first.steps() == before


def killed_everywhere(
    base: Path, prepare: Callable[[Path], RunFolder], act: Callable[[RunFolder], None], *, least: int
) -> Any:
    """A folder for each change that `act` makes to the file system, as it is after a kill just before it."""
    for count in range(200):
        place = base / str(count)
        folder = prepare(place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # forking a process with threads: the child uses none of theirs
            child = os.fork()
        if child == 0:
            kill_at(count)
            act(folder)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in (0, -signal.SIGKILL)
        yield folder
        shutil.rmtree(place)
        if ended == 0:
            assert count >= least, "the hook saw too few changes to have tested anything"
            return
    pytest.fail("the action did not end")


def kill_at(count: int) -> None:
    """End this process as SIGKILL does, just before its `count`-th change to the file system (0 is the first)."""
    left = count

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
