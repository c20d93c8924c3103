"""`bad_images.jsonl` of a run: a line for each file that is no image, `{"path", "split", "reason", "bytes"}`.

In the order in which the training and its evaluations met them, which depends on the order of the samples alone. A
file has one line, however often it is met again, and after a resume too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raycls.run import strict_json
from raycls.run.folder import RunFolder, read_json_lines

__all__ = ["NAME", "append", "read"]

NAME = "bad_images.jsonl"


def read(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines, in their order; none where no bad image was met."""
    return [line for line in read_json_lines(folder.store, NAME) if {"path", "split", "reason"} <= line.keys()]


def append(folder: RunFolder, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines; they are on the disk on return, so that no checkpoint is ahead of them."""
    folder.store.append_lines(NAME, [strict_json.dumps(line) for line in lines], sync=True)
