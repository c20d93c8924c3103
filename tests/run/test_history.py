from __future__ import annotations

import csv
import io
import json
import math
import struct
from typing import Any

import pytest

from raycls.run.folder import RunFolder
from raycls.run.history import History, read, write_csv
from raycls.run.storage.store import Store


def train(step: int, loss: float = 1.0) -> dict[str, Any]:
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": loss}


def evaluate(step: int, top1: float = 0.5, split: str = "val") -> dict[str, Any]:
    return {"kind": "evaluate", "split": split, "step": step, "epoch": step / 10, "top1": top1}


def write(folder: RunFolder, start: int, records: list[dict[str, Any]]) -> None:
    history = History(folder, folder.begin_attempt(start, 1))
    for record in records:
        history.write(record)
    history.close()


def losses(folder: RunFolder) -> list[tuple[int, int, float]]:
    return [(item["attempt"], item["step"], item["loss"]) for item in read(folder) if item["kind"] == "train"]


def test_records_are_read_as_written(store: Store) -> None:
    folder = RunFolder(store)
    write(folder, 0, [train(1, 0.1 + 0.2), evaluate(1)])
    first, second = read(folder)
    assert first["loss"] == 0.1 + 0.2 and first["attempt"] == 1 and first["time"] > 1.7e9
    assert (second["split"], second["top1"]) == ("val", 0.5)


def test_a_line_is_there_at_once(folder: RunFolder) -> None:
    history = History(folder, folder.begin_attempt(0, 1))
    history.write(train(1))
    assert len(read(folder)) == 1  # nothing was flushed or closed
    history.close()
    history.close()


def test_not_finite_is_strict_json_and_comes_back(folder: RunFolder) -> None:
    write(folder, 0, [train(1, math.nan), train(2, math.inf), {"kind": "event", "text": "inf"}])
    for line in folder.store.read_lines(folder.HISTORY)[:-1]:
        json.loads(line, parse_constant=pytest.fail)
    one, two, event = read(folder)
    assert math.isnan(one["loss"]) and two["loss"] == math.inf and event["text"] == "inf"


def test_what_was_done_again_counts_once(folder: RunFolder) -> None:
    write(folder, 0, [train(1), train(2), train(3, 9.0), train(4, 9.0)])
    write(folder, 2, [train(3), train(4)])
    assert losses(folder) == [(1, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0), (2, 4, 1.0)]


def test_an_evaluation_at_the_start_of_an_attempt_counts(folder: RunFolder) -> None:
    # The run was killed between the checkpoint of step 2 and its evaluation, or after both.
    write(folder, 0, [train(2), evaluate(2, 0.25)])
    write(folder, 2, [evaluate(2, 0.25), evaluate(2, 0.75, split="test"), train(3)])
    assert [(item["kind"], item["step"], item["attempt"], item.get("split")) for item in read(folder)] == [
        ("train", 2, 1, None),
        ("evaluate", 2, 2, "val"),
        ("evaluate", 2, 2, "test"),
        ("train", 3, 2, None),
    ]


def test_an_evaluation_of_a_future_that_was_undone_does_not_count(folder: RunFolder) -> None:
    write(folder, 0, [train(2), train(4)])
    write(folder, 4, [evaluate(4)])
    write(folder, 2, [train(3)])
    assert [(item["kind"], item["step"]) for item in read(folder)] == [("train", 2), ("train", 3)]


def test_a_line_torn_anywhere_costs_only_itself(folder: RunFolder) -> None:
    write(folder, 0, [train(1), train(2)])
    path = folder.path(folder.HISTORY)
    assert path is not None
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        history = History(folder, 1)
        history.write(train(3))
        history.close()
        assert [step for _, step, _ in losses(folder)] == [1, 3]


def test_csv_has_the_union_of_the_columns(folder: RunFolder) -> None:
    write(folder, 0, [train(1), evaluate(1), {"kind": "event", "text": 'a "word", two\nlines'}])
    write_csv(folder)
    data = folder.store.read_bytes(folder.HISTORY_CSV).decode()
    columns = "kind,epoch,step,attempt,loss,split,text,time,top1"
    assert data.splitlines()[0] == columns
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    assert [row["kind"] for row in rows] == ["train", "evaluate", "event"]
    assert rows[0]["loss"] == "1.0" and rows[1]["loss"] == "" and rows[2]["text"] == 'a "word", two\nlines'


def events(data: bytes) -> list[Any]:
    """The messages of a TensorBoard file: length, its checksum, message, checksum of that."""
    from tensorboardX.proto import event_pb2

    found, position = [], 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        found.append(event_pb2.Event.FromString(data[position + 12 : position + 12 + length]))  # type: ignore[attr-defined]
        position += 16 + length
    return found


def test_tensorboard_gets_the_numbers(store: Store) -> None:
    folder = RunFolder(store)
    write(folder, 0, [train(1, 0.5), evaluate(1, 0.25)])
    write(folder, 1, [train(2, math.nan)])
    first, second = (events(store.read_bytes(f"events/{name}")) for name in store.list("events"))
    points = {(value.tag, event.step): value.simple_value for event in first for value in event.summary.value}
    assert points == {
        ("train/loss", 1): 0.5,
        ("train/epoch", 1): pytest.approx(0.1),
        ("val/top1", 1): 0.25,
        ("val/epoch", 1): pytest.approx(0.1),
    }
    assert [event.step for event in second if event.HasField("session_log")] == [2]
    assert not any(event.HasField("session_log") for event in first)
    assert any(math.isnan(value.simple_value) for event in second for value in event.summary.value)


def test_tensorboard_is_there_after_a_kill(folder: RunFolder) -> None:
    history = History(folder, folder.begin_attempt(0, 1))
    history.write(train(1, 0.5))
    (name,) = folder.store.list("events")
    assert len(events(folder.store.read_bytes(f"events/{name}"))) == 3  # version, loss, epoch: not closed yet
    history.close()
