"""Checkpoints on S3: cut at every request of a write and a rotation, a readable one is always there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness.object_store import S3

from raycls.errors import CheckpointError
from raycls.run import checkpoint_files
from raycls.run.checkpoint import Writer, commit, load, newest
from raycls.run.folder import RunFolder
from raycls.run.snapshot import Snapshot
from raycls.run.storage import object_storage, retry

State = Callable[..., Snapshot]

pytestmark = pytest.mark.faults


def best(step: int) -> dict[str, Any]:
    return {"step": step, "metric": "top1", "value": step / 10}


def no_warning(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault, again", [("refuse", False), ("after", False), ("after", True)])
def test_cut_at_any_request_of_a_write_and_its_rotation(
    s3: S3, state: State, monkeypatch: pytest.MonkeyPatch, fault: str, again: bool
) -> None:
    """From one request on nothing arrives any more, as after SIGKILL or a cut wire; then another process looks.

    `again`: another state of a step that has a checkpoint is written.
    """
    monkeypatch.setattr(object_storage, "_ATTEMPTS", 1)
    for step in (1, 2):
        commit(RunFolder(s3.uri("runs/x")), state(step), keep=2, best=best(step))
    before = s3.objects()
    monkeypatch.setattr(retry, "DEADLINE", 0.0)
    new = state(2, value=99.0) if again else state(3)
    found_states: list[tuple[int, float]] = []
    for number in range(200):
        s3.restore(before)
        writer, reader = RunFolder(s3.uri("runs/x")), RunFolder(s3.uri("runs/x"))
        s3.proxy.fail_from(number, fault)
        try:
            commit(writer, new, keep=1, best=best(new.step))
            ended = True
        except CheckpointError:
            ended = False
        s3.proxy.reset()
        for step in reader.steps():  # what can be seen is whole, also for one who repairs nothing
            assert checkpoint_files.is_good(reader.store, reader.checkpoint(step), step)
        found = newest(reader, on_bad=no_warning)
        assert found is not None and found.trees["train"]["step"] == found.step
        found_states.append((found.step, found.trees["train"]["note"]))
        assert reader.read_json(RunFolder.BEST) == best(found.step)
        assert all(name.startswith("step-") for name in reader.store.list("checkpoints"))
        if number % 5 == 0:
            commit(reader, state(4), keep=1, best=best(4))
            assert load(reader, 4).step == 4 and reader.store.list("checkpoints") == ["step-00000004"]
        if ended:
            break
    else:
        pytest.fail("the write did not end")
    print(f"{len(found_states)} requests were cut")
    assert len(found_states) > 20
    assert found_states == sorted(found_states)
    assert {found_states[0], found_states[-1]} == {(2, 2.0), (2, 99.0) if again else (3, 3.0)}


def test_each_request_lost_once_changes_nothing(s3: S3, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "_ATTEMPTS", 1)  # what is tried again is tried again here
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)
    folder = RunFolder(s3.uri("runs/x"))
    s3.proxy.fault = lambda number, method, path: "after" if number % 2 == 0 else None
    for step in (1, 2, 3):
        commit(folder, state(step), keep=1, best=best(step))
    s3.proxy.reset()
    assert folder.steps() == [3] and folder.read_json(RunFolder.BEST) == best(3)
    assert {name.partition("/")[2] for name in s3.objects("runs/x/checkpoints/") if "/" in name} == {
        *("manifest.json", "model.json", "model.safetensors", "train.json", "train.safetensors")
    }


def test_the_thread_that_writes_tells_that_the_storage_is_gone(
    s3: S3, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DEADLINE", 1.0)
    folder = RunFolder(s3.uri("runs/x"))
    folder.store.tell(lambda text: None)
    commit(folder, state(1), keep=1)
    s3.proxy.stop()
    with Writer(folder, 1) as writer:
        writer.submit(state(2))
        writer.settle()
        error = writer.error
    s3.proxy.start()
    assert isinstance(error, CheckpointError) and "s3://bucket/runs/x" in str(error.where)
    found = newest(RunFolder(s3.uri("runs/x")), on_bad=no_warning)
    assert found is not None and found.step == 1
