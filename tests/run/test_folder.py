from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raycls.errors import CheckpointError, LaunchError
from raycls.run.folder import Attempt, RunFolder, survives, survivors
from raycls.run.storage.lock import Lock
from raycls.run.storage.store import Store


def attempt(number: int, step: int) -> Attempt:
    return Attempt(number, step, workers=1, threads=1, time=0.0)


def line(number: int, step: int) -> dict[str, int]:
    return {"attempt": number, "step": step}


def surviving(lines: Sequence[Mapping[str, Any]], attempts: Sequence[Attempt]) -> list[Mapping[str, Any]]:
    spans = survivors(attempts)
    return [line for line in lines if survives(line, spans)]


def test_attempts_are_counted_and_remembered(store: Store) -> None:
    folder = RunFolder(store)
    assert folder.attempts() == [] and not folder.store.exists()
    assert folder.begin_attempt(0, 2, 1, executor="ray") == 1
    assert folder.begin_attempt(40, 3, threads=4) == 2
    first, second = folder.attempts()
    assert (first.attempt, first.step, first.workers, first.threads, first.rest) == (1, 0, 2, 1, {"executor": "ray"})
    assert (second.attempt, second.step, second.workers, second.threads) == (2, 40, 3, 4)
    assert second.time >= first.time > 1.7e9


def test_a_torn_attempt_is_no_attempt(folder: RunFolder) -> None:
    folder.begin_attempt(0, 1)
    folder.begin_attempt(5, 1)
    path = folder.path(folder.ATTEMPTS)
    assert path is not None
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert [item.step for item in folder.attempts()] == [0]
        assert folder.begin_attempt(7, 1) == 2
        assert [item.step for item in folder.attempts()] == [0, 7]


def test_a_new_attempt_takes_back_the_result_and_sweeps(folder: RunFolder) -> None:
    folder.write_json(folder.RESULT, {"step": 3})
    folder.store.write_bytes(".best.json.77.0.tmp", b"half")
    folder.store.write_bytes("model/.model.json.77.1.tmp", b"half")
    folder.begin_attempt(3, 1)
    assert folder.read_json(folder.RESULT) is None
    assert folder.store.list() == ["attempts.jsonl", "model"] and folder.store.list("model") == []


def test_what_survives_one_fall_back() -> None:
    # Attempt 1 reached step 5, its newest checkpoint was that of step 3; attempt 2 went on from there.
    lines = [line(1, step) for step in range(1, 6)] + [line(2, 4), line(2, 5), line(2, 6)]
    kept = surviving(lines, [attempt(1, 0), attempt(2, 3)])
    assert kept == [line(1, 1), line(1, 2), line(1, 3), line(2, 4), line(2, 5), line(2, 6)]


def test_what_survives_a_fall_back_behind_an_earlier_one() -> None:
    # 1: steps 1-6; 2 from 4: steps 5-8; then the checkpoints of 4 and 8 were bad: 3 from 2: steps 3-9.
    lines = [line(1, step) for step in range(1, 7)] + [line(2, step) for step in range(5, 9)]
    lines += [line(3, step) for step in range(3, 10)]
    kept = surviving(lines, [attempt(3, 2), attempt(1, 0), attempt(2, 4)])
    assert kept == [line(1, 1), line(1, 2)] + [line(3, step) for step in range(3, 10)]


def test_an_attempt_that_did_nothing_changes_nothing() -> None:
    lines = [line(1, 1), line(1, 2), line(3, 3)]
    assert surviving(lines, [attempt(1, 0), attempt(2, 2), attempt(3, 2)]) == lines


def test_lines_without_step_or_of_nobody() -> None:
    event = {"kind": "event", "text": "hello"}
    assert surviving([event, line(9, 1)], [attempt(1, 0)]) == [event]


def test_json_is_strict_and_damage_is_named(folder: RunFolder) -> None:
    folder.write_json("x.json", {"a": float("nan"), "b": [1, 2]})
    path = folder.path("x.json")
    assert path is not None
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": "nan", "b": [1, 2]}
    assert folder.read_json("none.json") is None
    folder.store.write_bytes("x.json", b'{"a": ')
    with pytest.raises(CheckpointError, match="damaged") as caught:
        folder.read_json("x.json")
    assert str(caught.value.where).endswith("x.json")


def test_steps_are_those_with_a_manifest(folder: RunFolder) -> None:
    for name in ("step-00000010/manifest.json", "step-00000009/model.json", "step-123456789/manifest.json"):
        folder.store.write_bytes(f"checkpoints/{name}", b"{}")
    for name in (".step-00000011.5/manifest.json", "bad-step-00000012/manifest.json", "step-7/manifest.json"):
        folder.store.write_bytes(f"checkpoints/{name}", b"{}")
    assert folder.steps() == [10, 123456789]
    assert folder.checkpoint(10) == "checkpoints/step-00000010"


def test_set_aside_deletes_nothing(store: Store) -> None:
    assert RunFolder(store).set_aside() is None
    for number in (1, 2):
        folder = RunFolder(store)
        folder.begin_attempt(0, number)
        folder.store.flush()
        moved = folder.set_aside()
        assert moved is not None and moved.endswith(f"run.old-{number}")
        assert RunFolder(store).attempts() == []
        assert RunFolder(store.sibling(f"run.old-{number}")).attempts()[0].workers == number
    assert RunFolder(store).set_aside() is None


def test_a_run_in_use_is_not_set_aside(folder: RunFolder) -> None:
    folder.begin_attempt(0, 1)
    with Lock(folder, "train"), pytest.raises(LaunchError, match="another process"):
        folder.set_aside()
    assert len(folder.attempts()) == 1


def test_at_joins_storage_and_name(tmp_path: Path) -> None:
    folder = RunFolder.at(str(tmp_path / "runs"), "mine")
    assert folder.uri == str(tmp_path / "runs" / "mine")
    assert RunFolder(folder.uri).path("a") == tmp_path / "runs/mine/a"
