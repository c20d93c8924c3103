"""Reads the files that Weights & Biases writes: records of protobuf in the log format of LevelDB.

Its own package has no reader that can be called; the format is at https://github.com/google/leveldb, doc/log_format.md.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32 * 1024, 7
_FULL, _LAST = 1, 4


def records(file: Path) -> Iterator[Any]:
    """The records of a `.wandb` file, up to where a kill has torn it. Checksums are verified."""
    from wandb.proto import wandb_internal_pb2

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = _HEADER, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + _HEADER])
        chunk = data[place + _HEADER : place + _HEADER + length]
        if len(chunk) < length or not kind:
            return
        assert zlib.crc32(bytes([kind]) + chunk) == checksum
        parts += chunk
        place += _HEADER + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def contents(file: Path) -> dict[str, Any]:
    """`run` (id, group, project, notes), `config`, `rows` (of the history), `summary`, and `exit_code`."""
    found: dict[str, Any] = {"rows": [], "config": {}, "summary": {}, "exit_code": None}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["run"] = (run.run_id, run.run_group, run.project, run.notes, run.display_name)
            found["config"] |= _values(run.config.update)
        elif kind == "config":
            found["config"] |= _values(record.config.update)
        elif kind == "history":
            found["rows"].append(_values(record.history.item))
        elif kind == "summary":
            found["summary"] |= _values(record.summary.update)
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
