"""Tar shards as `webdataset` 1.0 writes them: the files of a sample one after the other, with pax times."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["encoded", "write_shard"]


def encoded(suffix: str, value: Any) -> bytes:
    """What `webdataset` writes of a value under a suffix."""
    if isinstance(value, bytes):
        return value
    return (json.dumps(value) if suffix.endswith("json") else str(value)).encode()


def write_shard(file: Path, samples: Sequence[Mapping[str, Any]]) -> None:
    """A shard with `samples`: their `__key__`, and values by suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w|", format=tarfile.PAX_FORMAT) as archive:
        for sample in samples:
            for suffix, value in sample.items():
                if suffix == "__key__":
                    continue
                data = encoded(suffix, value)
                member = tarfile.TarInfo(f"{sample['__key__']}.{suffix}")
                member.size, member.mtime, member.mode = len(data), 1.5, 0o444  # pyright: ignore[reportAttributeAccessIssue]
                archive.addfile(member, io.BytesIO(data))
