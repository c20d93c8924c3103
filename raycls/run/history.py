"""What a run measured: one JSON line per record, the same numbers for TensorBoard, and a CSV at the end.

`history.jsonl` is written at once and never rewritten. `read` leaves out what a crash tore and what a later
attempt did again.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raycls.run import strict_json
from raycls.run.folder import Attempt, RunFolder, read_json_lines, survives, survivors

__all__ = ["History", "counting", "numbered", "points", "read", "surviving", "write_csv"]

_TEXTS = ("kind", "split", "text")
_NOT_DRAWN = ("attempt", "step", "time", "count", *_TEXTS)


class History:
    """The records of one attempt.

    A record is flat: `{"kind": "train" | "evaluate" | ..., "step": steps done, "epoch": ..., numbers and texts}`;
    an evaluation also has its `split`. `attempt` and `time` (Unix, seconds) are added where they are missing.
    """

    def __init__(self, folder: RunFolder, attempt: int) -> None:
        self._folder = folder
        self._attempt = attempt
        start = next((item.step for item in folder.attempts() if item.attempt == attempt), 0)
        self._events: _Events | None = _Events(folder, attempt, purge_from=start + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append the record. NaN and infinities are kept as the texts "nan", "inf" and "-inf"."""
        line = {"attempt": self._attempt, "time": time.time(), **record}
        self._folder.store.append_line(self._folder.HISTORY, strict_json.dumps(line))
        if self._events is not None:
            self._events.write(line)

    def flush(self) -> None:
        """Bring every line to the disk, or to the remote store, before returning."""
        self._folder.store.append_lines(self._folder.HISTORY, [], sync=True)
        if self._events is not None:
            self._events.upload()

    def close(self) -> None:
        """`flush`, and end the event file. May be called twice."""
        events, self._events = self._events, None
        try:
            self.flush()
        finally:
            if events is not None:
                events.close()


def read(folder: RunFolder) -> list[dict[str, Any]]:
    """The records that led to the newest state, in their order; numbers that are not finite are floats again.

    An evaluation that was done at the step where a later attempt began counts, and of two records of the same
    kind, split and step the later one.
    """
    return surviving(read_json_lines(folder.store, folder.HISTORY), folder.attempts())


def surviving(lines: Sequence[Mapping[str, Any]], attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """What `read` gives, of lines that were read and of the attempts there are by then."""
    counts = counting(attempts)
    unique: dict[tuple[Any, ...], dict[str, Any]] = {}
    for index, line in enumerate(lines):
        if not counts(line):
            continue
        key = (line.get("kind"), line.get("split"), line.get("step")) if "step" in line else (index,)
        unique.pop(key, None)
        unique[key] = numbered(line)
    return list(unique.values())


def counting(attempts: Sequence[Attempt]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a record led to the newest state of a run with these attempts."""
    spans = survivors(attempts)
    with_start = {attempt: (first - 1, last) for attempt, (first, last) in spans.items()}
    return lambda line: survives(line, with_start if line.get("kind") == "evaluate" else spans)


def numbered(line: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it was given to `History.write`: its numbers that are not finite are floats again."""
    return {name: _number(name, value) for name, value in line.items()}


def points(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record for a chart, named `train/loss` or `val/top1`; none where it has no step."""
    if not isinstance(record.get("step"), int):
        return {}
    group = record.get("split") or record.get("kind") or "run"
    return {
        f"{group}/{name}": float(value)
        for name, value in record.items()
        if name not in _NOT_DRAWN and isinstance(value, int | float) and not isinstance(value, bool)
    }


def write_csv(folder: RunFolder) -> None:
    """Write `history.csv`: one row per surviving record, the union of their names as columns."""
    records = read(folder)
    first = ["kind", "epoch", "step"]
    columns = first + sorted({name for record in records for name in record} - set(first))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    folder.store.write_bytes(folder.HISTORY_CSV, text.getvalue().encode())


def _number(name: str, value: Any) -> Any:
    return strict_json.NOT_FINITE.get(value, value) if isinstance(value, str) and name not in _TEXTS else value


class _Events:
    """One TensorBoard event file, written in the caller's thread: no queue that a kill would empty."""

    def __init__(self, folder: RunFolder, attempt: int, *, purge_from: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._folder = folder
        self._messages: Any = event_pb2  # their names are made when they are imported
        self._summaries: Any = summary_pb2
        local = folder.path(folder.EVENTS)
        self._temporary = Path(tempfile.mkdtemp(prefix=f"raycls-{os.getpid()}-events")) if local is None else None
        place = local or self._temporary
        with folder.store.explaining("written", folder.EVENTS):
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._writer = EventsWriter(f"{place}/events", f".attempt-{attempt:04d}")
            if purge_from > 1:  # TensorBoard drops what earlier attempts wrote from this step on
                session = self._messages.SessionLog(status=self._messages.SessionLog.START)
                self._add(self._messages.Event(wall_time=time.time(), step=purge_from, session_log=session))

    def write(self, line: Mapping[str, Any]) -> None:
        step = line.get("step")
        for name, value in points(line).items():
            point = self._summaries.Summary.Value(tag=name, simple_value=value)
            summary = self._summaries.Summary(value=[point])
            self._add(self._messages.Event(wall_time=float(line["time"]), step=step, summary=summary))
        with self._folder.store.explaining("written", self._folder.EVENTS):
            self._writer.flush()

    def upload(self) -> None:
        """Bring the file to a remote store."""
        if self._temporary is not None:
            for file in sorted(self._temporary.iterdir()):
                self._folder.store.upload_file(file, f"{self._folder.EVENTS}/{file.name}")

    def close(self) -> None:
        try:
            with self._folder.store.explaining("written", self._folder.EVENTS):
                self._writer.close()
            self.upload()
        finally:
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def _add(self, event: Any) -> None:
        with self._folder.store.explaining("written", self._folder.EVENTS):
            self._writer.write_event(event)
