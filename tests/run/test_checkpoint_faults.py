"""Damage every file of the newest checkpoint; kill a write before every change it makes to the disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raycls.errors import CheckpointError
from raycls.run import checkpoint_files
from raycls.run.checkpoint import Writer, commit, load, newest
from raycls.run.folder import RunFolder
from raycls.run.snapshot import Snapshot, snapshot

State = Callable[..., Snapshot]

pytestmark = pytest.mark.faults

FILES = ("manifest.json", "model.json", "model.safetensors", "train.json", "train.safetensors")
CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"})


def no_warning(text: str) -> None:
    raise AssertionError(text)


def cut_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_one(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip_first(path: Path) -> None:
    flip(path, 0, 3)


def flip_middle(path: Path) -> None:
    flip(path, path.stat().st_size // 2, 0)


def flip_last(path: Path) -> None:
    flip(path, -1, 7)


def delete(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def take_older(path: Path) -> None:
    shutil.copy(path.parent.with_name("step-00000001") / path.name, path)


def flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(bytes(data))


DAMAGES = (cut_half, cut_one, empty, grow, flip_first, flip_middle, flip_last, delete, make_folder, take_older)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_noticed_and_the_one_before_is_used(
    folder: RunFolder, name: str, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):  # of different sizes, so that a file of the other one never fits by accident
        commit(
            folder,
            snapshot(step, {"model": {"w": torch.ones(step), "n": step}, "train": {"s": step, "t": torch.ones(step)}}),
            keep=2,
        )
    path = folder.path(f"checkpoints/step-00000002/{name}")
    assert path is not None
    before = path.read_bytes()
    damage(path)
    if path.is_file() and path.read_bytes() == before:
        pytest.fail("the damage did nothing")
    warned: list[str] = []
    found = newest(folder, on_bad=warned.append)
    assert found is not None and found.step == 1 and found.trees["train"]["s"] == 1
    assert len(warned) == 1 and "step 2" in warned[0] and name in warned[0]
    assert folder.store.list("checkpoints") == ["bad-step-00000002", "step-00000001"]
    assert newest(folder, on_bad=no_warning) is not None
    commit(folder, snapshot(2, {"train": {"s": 2}}), keep=1)
    assert folder.store.list("checkpoints") == ["bad-step-00000002", "step-00000002"]


def test_every_byte_of_the_manifest_counts(folder: RunFolder, state: State) -> None:
    commit(folder, state(2), keep=1)
    path = folder.path("checkpoints/step-00000002/manifest.json")
    assert path is not None
    data = path.read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(checkpoint_files.BadCheckpointError, match=r"manifest\.json"):
            checkpoint_files.manifest(folder.store, "checkpoints/step-00000002", 2)


def test_a_missing_folder_or_a_file_in_its_place(folder: RunFolder, state: State) -> None:
    commit(folder, state(1), keep=2)
    folder.store.write_bytes("checkpoints/step-00000002", b"I am a file")
    warned: list[str] = []
    found = newest(folder, on_bad=warned.append)
    assert found is not None and found.step == 1 and len(warned) == 1


def test_all_of_them_bad(folder: RunFolder, state: State) -> None:
    for step in (1, 2):
        commit(folder, state(step), keep=2)
        folder.store.delete(f"checkpoints/step-0000000{step}/model.json")
    warned: list[str] = []
    assert newest(folder, on_bad=warned.append) is None
    assert len(warned) == 2 and folder.steps() == []


def test_bad_twice_at_the_same_step(folder: RunFolder, state: State) -> None:
    for _ in range(2):
        commit(folder, state(1), keep=1)
        folder.store.delete("checkpoints/step-00000001/model.json")
        assert newest(folder, on_bad=lambda text: None) is None
    assert folder.store.list("checkpoints") == ["bad-step-00000001", "bad-step-00000001-2"]


@pytest.mark.parametrize("damage", ["delete", "flip", "cut"])
@pytest.mark.parametrize("name", FILES)
def test_the_same_in_an_object_store(
    objects: Any, remote: Callable[[], RunFolder], state: State, name: str, damage: str
) -> None:
    for step in (1, 2):
        commit(remote(), state(step), keep=2)
    key = f"bucket/run/checkpoints/step-00000002/{name}"
    data = objects.objects.pop(key)
    if damage == "flip":
        objects.objects[key] = bytes([data[0] ^ 1]) + data[1:]
    elif damage == "cut":
        objects.objects[key] = data[:-1]
    warned: list[str] = []
    found = newest(remote(), on_bad=warned.append)
    assert found is not None and found.step == 1
    if (name, damage) == ("manifest.json", "delete"):  # as after a write or a deletion that was cut off
        assert not warned and remote().store.list("checkpoints") == ["step-00000001"]
    else:
        assert len(warned) == 1 and name in warned[0]
    assert newest(remote(), on_bad=no_warning) is not None


def kill_at(count: int) -> None:
    """End this process as SIGKILL does, just before its `count`-th change to the file system (0 is the first)."""
    left = count

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)


def killed_everywhere(
    base: Path,
    in_child: Callable[..., int],
    prepare: Callable[[RunFolder], None],
    act: Callable[[RunFolder], object],
    *,
    least: int,
) -> Iterator[RunFolder]:
    """A folder for each change that `act` makes to the file system, as it is after a kill just before it."""
    for count in range(100):
        folder = RunFolder(base / f"run-{count}")
        prepare(folder)

        def child(folder: RunFolder = folder, count: int = count) -> None:
            kill_at(count)
            act(folder)

        ended = in_child(child)
        assert ended in (0, -signal.SIGKILL)
        yield folder
        if ended == 0:
            assert count >= least, "the hook saw too few changes to have tested anything"
            return
        shutil.rmtree(folder.uri)
    pytest.fail("the action did not end")


def best(step: int) -> dict[str, Any]:
    return {"step": step, "metric": "top1", "value": step / 10}


def clean(folder: RunFolder) -> None:
    """What a recovered folder must look like, and that the next checkpoint can be written."""
    names = folder.store.list("checkpoints")
    assert all(name.startswith("step-") for name in names), names
    standing = folder.read_json(folder.BEST)
    assert standing is None or standing["step"] in folder.steps()
    commit(folder, snapshot(3, {"train": {"step": 3}}), keep=1, best=best(3))
    assert folder.steps() == [3] and folder.read_json(folder.BEST) == best(3)
    assert folder.store.list("checkpoints") == ["step-00000003"]


def test_a_kill_at_any_call_of_a_write_leaves_a_whole_checkpoint(
    tmp_path: Path, in_child: Callable[..., int], state: State
) -> None:
    def act(folder: RunFolder) -> None:
        commit(folder, state(2), keep=1, best=best(2))

    found_steps: list[int] = []
    for folder in killed_everywhere(
        tmp_path, in_child, lambda folder: commit(folder, state(1), keep=1, best=best(1)), act, least=15
    ):
        found = newest(folder, on_bad=no_warning)
        assert found is not None and found.trees["train"] == {"step": found.step, "note": float(found.step)}
        assert folder.read_json(folder.BEST) == best(found.step)
        found_steps.append(found.step)
        clean(folder)
    assert found_steps == sorted(found_steps) and set(found_steps) == {1, 2}


def test_a_kill_while_the_same_step_is_written_again(
    tmp_path: Path, in_child: Callable[..., int], state: State
) -> None:
    def act(folder: RunFolder) -> None:
        commit(folder, state(2, value=99.0), keep=1)

    notes: list[float] = []
    for folder in killed_everywhere(tmp_path, in_child, lambda folder: commit(folder, state(2), keep=1), act, least=14):
        found = newest(folder, on_bad=no_warning)
        assert found is not None and found.step == 2
        notes.append(found.trees["train"]["note"])
        clean(folder)
    assert notes == sorted(notes) and set(notes) == {2.0, 99.0}


def test_a_kill_while_a_damaged_run_is_mended(tmp_path: Path, in_child: Callable[..., int], state: State) -> None:
    def prepare(folder: RunFolder) -> None:
        commit(folder, state(1), keep=2, best=best(1))
        commit(folder, state(2), keep=2, best=best(2))
        folder.store.move("checkpoints/step-00000001", "checkpoints/.replaced-step-00000001")
        folder.store.write_bytes("checkpoints/.step-00000003.77/model.json", b"half")
        folder.store.write_bytes("checkpoints/step-00000002/model.json", b"damaged")

    for folder in killed_everywhere(
        tmp_path, in_child, prepare, lambda folder: newest(folder, on_bad=lambda text: None), least=6
    ):
        found = newest(folder, on_bad=lambda text: None)
        assert found is not None and found.step == 1
        assert folder.store.list("checkpoints") == ["bad-step-00000002", "step-00000001"]
        assert folder.read_json(folder.BEST) == best(1)


def test_a_kill_at_any_call_to_an_object_store(objects: Any, remote: Callable[[], RunFolder], state: State) -> None:
    found_steps: list[int] = []
    for again in (False, True):  # a new step, then another state of the same step
        for count in range(200):
            objects.fuse = None
            objects.objects.clear()
            commit(remote(), state(1), keep=1, best=best(1))
            objects.fuse = count
            ended = True
            try:
                commit(remote(), state(1, value=99.0) if again else state(2), keep=1)
            except BaseException as error:
                assert objects.fuse < 0, error
                ended = False
            objects.fuse = None
            if not again:
                assert all(
                    checkpoint_files.is_good(remote().store, remote().checkpoint(step), step)
                    for step in remote().steps()
                )
            found = newest(remote(), on_bad=lambda text: None)
            assert found is not None and found.trees["train"]["step"] == found.step
            found_steps.append(found.step)
            commit(remote(), state(3), keep=1)
            assert load(remote(), 3).step == 3
            if ended:
                assert count > 10
                break
        else:
            pytest.fail("the write did not end")
    assert set(found_steps) == {1, 2}


def test_a_full_disk(folder: RunFolder, state: State, in_child: Callable[..., int]) -> None:
    commit(folder, state(1), keep=1)

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        with Writer(folder, 1) as writer:
            writer.submit(snapshot(2, {"model": {"text": "x" * 20_000}}))
            with pytest.raises(CheckpointError, match="larger than this disk"):
                writer.wait()
            assert folder.store.list("checkpoints") == ["step-00000001"]
            writer.submit(state(3))
            writer.wait()

    assert in_child(child) == 0
    assert folder.steps() == [3]
