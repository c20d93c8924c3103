from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raycls.errors import CheckpointError
from raycls.run import checkpoint, checkpoint_files
from raycls.run.checkpoint import Writer, commit, load, newest
from raycls.run.folder import RunFolder
from raycls.run.snapshot import Snapshot
from raycls.run.storage.store import Store

State = Callable[..., Snapshot]


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_what_is_committed_is_loaded(store: Store, state: State) -> None:
    folder = RunFolder(store)
    assert newest(folder, on_bad=no_warning) is None and folder.steps() == []
    commit(folder, state(7), keep=2)
    found = newest(folder, on_bad=no_warning)
    assert found is not None and found.step == 7
    assert found.trees["model"]["weight"].tolist() == [[7.0, 7.0]] * 3
    assert found.trees["train"] == {"step": 7, "note": 7.0}
    assert load(folder, 7).trees["train"] == {"step": 7, "note": 7.0}


def test_manifest_and_layout(folder: RunFolder, state: State) -> None:
    commit(folder, state(1234), keep=1)
    path = folder.path("checkpoints/step-00001234")
    assert path is not None
    names = ["manifest.json", "model.json", "model.safetensors", "train.json", "train.safetensors"]
    assert sorted(file.name for file in path.iterdir()) == names
    manifest = folder.read_json("checkpoints/step-00001234/manifest.json")
    assert (manifest["format"], manifest["step"]) == (1, 1234)
    assert manifest["files"]["model.json"]["size"] == (path / "model.json").stat().st_size
    assert set(manifest["versions"]) == {"raycls", "torch"}


def test_the_newest_and_the_best_are_kept(store: Store, state: State) -> None:
    folder = RunFolder(store)
    for step in range(1, 7):
        best = {"step": step, "metric": "top1", "value": step / 10} if step in (1, 3) else None
        commit(folder, state(step), keep=2, best=best)
    assert folder.steps() == [3, 5, 6]
    assert folder.read_json(folder.BEST) == {"step": 3, "metric": "top1", "value": 0.3}
    assert store.list("checkpoints") == ["step-00000003", "step-00000005", "step-00000006"]


def test_the_same_state_again_is_not_written_again(folder: RunFolder, state: State) -> None:
    commit(folder, state(3), keep=1)
    path = folder.path("checkpoints/step-00000003/manifest.json")
    assert path is not None
    before = path.read_bytes(), path.stat().st_ino
    commit(folder, state(3), keep=1)
    assert (path.read_bytes(), path.stat().st_ino) == before


def test_another_state_of_the_same_step_replaces_it(store: Store, state: State) -> None:
    folder = RunFolder(store)
    commit(folder, state(3), keep=1)
    commit(folder, state(3, value=99.0), keep=1)
    assert load(folder, 3).trees["train"]["note"] == 99.0
    assert store.list("checkpoints") == ["step-00000003"]


def test_a_bad_checkpoint_in_the_way_is_put_aside(folder: RunFolder, state: State) -> None:
    commit(folder, state(3), keep=1)
    folder.store.delete("checkpoints/step-00000003/model.json")
    commit(folder, state(3), keep=1)
    assert load(folder, 3).step == 3
    assert folder.store.list("checkpoints") == ["bad-step-00000003", "step-00000003"]


def test_best_is_that_of_the_checkpoint_one_goes_on_from(folder: RunFolder, state: State) -> None:
    first, second = {"step": 1, "metric": "top1", "value": 0.1}, {"step": 2, "metric": "top1", "value": 0.2}
    commit(folder, state(1), keep=2, best=first)
    commit(folder, state(2), keep=2, best=second)
    folder.store.delete("checkpoints/step-00000002/train.json")
    warned: list[str] = []
    found = newest(folder, on_bad=warned.append)
    assert found is not None and found.step == 1 and len(warned) == 1
    assert folder.read_json(folder.BEST) == first


@pytest.mark.parametrize("damage", [None, b"", b'{"step": 9}'])
def test_best_json_is_mended_from_the_manifest(folder: RunFolder, state: State, damage: bytes | None) -> None:
    best = {"step": 1, "metric": "loss", "value": float("inf")}
    commit(folder, state(1), keep=1, best=best)
    commit(folder, state(2), keep=1)
    if damage is None:
        folder.store.delete(folder.BEST)
    else:
        folder.store.write_bytes(folder.BEST, damage)
    newest(folder, on_bad=no_warning)
    assert folder.read_json(folder.BEST) == {"step": 1, "metric": "loss", "value": "inf"}
    assert folder.steps() == [1, 2]


def test_a_reader_without_the_lock_changes_nothing(folder: RunFolder, state: State) -> None:
    commit(folder, state(1), keep=2)
    commit(folder, state(2), keep=2)
    folder.store.write_bytes("checkpoints/step-00000002/model.json", b"{}")
    folder.store.write_bytes("checkpoints/.step-00000003.77/model.json", b"{}")
    before = sorted(Path(folder.uri).rglob("*"))
    warned: list[str] = []
    found = newest(folder, on_bad=warned.append, repair=False)
    assert found is not None and found.step == 1 and "model.json" in warned[0]
    assert sorted(Path(folder.uri).rglob("*")) == before


def test_leftovers_are_cleared(folder: RunFolder, state: State) -> None:
    commit(folder, state(1), keep=2)
    folder.store.write_bytes("checkpoints/.step-00000002.77/model.json", b"half")
    folder.store.write_bytes("checkpoints/.old-step-00000000/model.json", b"half")
    assert newest(folder, on_bad=no_warning) is not None
    assert folder.store.list("checkpoints") == ["step-00000001"]


def test_a_newer_format_is_refused_and_left_alone(
    folder: RunFolder, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_files, "_FORMAT", 2)
    commit(folder, state(1), keep=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="another version"):
        newest(folder, on_bad=no_warning)
    assert folder.steps() == [1]


def test_load_names_what_is_there(folder: RunFolder, state: State) -> None:
    commit(folder, state(1), keep=1)
    with pytest.raises(CheckpointError) as caught:
        load(folder, 2)
    assert "missing" in str(caught.value.found) and "1" in str(caught.value.valid)
    commit(folder, state(2), keep=2)
    folder.store.delete("checkpoints/step-00000002/model.json")
    with pytest.raises(CheckpointError) as caught:
        load(folder, 2)
    assert caught.value.valid == "one of the steps 1"
    folder.store.delete("checkpoints/step-00000001/model.json")  # so that this one cannot be used either
    with pytest.raises(CheckpointError) as caught:
        load(folder, 2)
    assert caught.value.valid == "one of the steps (none)"


def test_nothing_unpickles(folder: RunFolder, state: State) -> None:
    commit(folder, state(1), keep=1)
    path = folder.path("checkpoints/step-00000001")
    assert path is not None
    for file in path.iterdir():
        assert file.suffix in (".json", ".safetensors")
        assert file.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04")


class TestWriter:
    def test_writes_while_the_caller_goes_on(
        self, folder: RunFolder, state: State, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = threading.Event()
        real = checkpoint.commit

        def slow(*args: object, **options: object) -> None:
            assert gate.wait(10)
            real(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(checkpoint, "commit", slow)
        with Writer(folder, 2) as writer:
            writer.submit(state(1), best={"step": 1, "metric": "top1", "value": 0.5})
            assert folder.steps() == [] and not folder.store.exists(folder.BEST)
            gate.set()
            writer.submit(state(2))
            writer.wait()
            assert folder.steps() == [1, 2]
            writer.submit(state(3))
        assert folder.steps() == [1, 2, 3]

    def test_a_failure_is_kept_and_raised_once(self, folder: RunFolder, state: State) -> None:
        folder.store.write_bytes("checkpoints", b"a file is in the way")
        with Writer(folder, 1) as writer:
            writer.submit(state(1))
            with pytest.raises(CheckpointError, match="could not be"):
                writer.submit(state(2))
            assert writer.error is None
            folder.store.delete("checkpoints")
            writer.submit(state(3))
            writer.wait()
            assert folder.steps() == [3]

    def test_an_unforeseen_failure_is_told_too(self, folder: RunFolder, state: State) -> None:
        with Writer(folder, 1) as writer:
            writer.submit(Snapshot(1, {"model": {"weight": "x", "bad": {1, 2}}}))
            writer.close()
            assert writer.error is not None and "TypeError" in str(writer.error)

    def test_best_belongs_to_its_own_step(self, folder: RunFolder, state: State) -> None:
        with pytest.raises(ValueError, match="step 1"):
            commit(folder, state(2), keep=1, best={"step": 1, "metric": "top1", "value": 0.5})


def test_a_write_that_does_not_read_back_is_an_error_and_deletes_nothing(
    folder: RunFolder, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(folder, state(1), keep=1)
    real = Store.move

    def damaging(self: Store, source: str, target: str, *, last: str = "") -> None:
        real(self, source, target, last=last)
        path = self.local_path(f"{target}/model.safetensors")
        if target.endswith("step-00000002") and path is not None and path.exists():
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(bytes(data))

    monkeypatch.setattr(Store, "move", damaging)
    with pytest.raises(CheckpointError, match="does not read back"):
        commit(folder, state(2), keep=1)
    monkeypatch.undo()
    found = newest(folder, on_bad=no_warning)
    assert found is not None and found.step == 1


def test_no_remote_checkpoint_is_ahead_of_the_lines_before_it(remote: Callable[[], RunFolder], state: State) -> None:
    folder = remote()
    folder.store.append_line(folder.HISTORY, "a line in memory")
    assert remote().store.read_lines(folder.HISTORY) == []
    commit(folder, state(1), keep=1)
    assert remote().store.read_lines(folder.HISTORY) == ["a line in memory", ""]


def test_two_readings_do_not_share_memory_with_the_file(folder: RunFolder, state: State) -> None:
    commit(folder, state(1), keep=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns about memory that must not be written to
        first = load(folder, 1).trees["model"]["weight"]
    first.add_(1)
    assert torch.equal(load(folder, 1).trees["model"]["weight"], torch.ones(3, 2))
