"""What is answered to a request: a status of HTTP and plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "refused"]


@dataclass(frozen=True)
class Answer:
    """One answer; it travels between processes."""

    status: int
    body: dict[str, Any]
    batch: int = 0
    """The size of the batch that was computed, in one answer of each batch, else 0."""
    headers: dict[str, str] = field(default_factory=dict[str, str])


def refused(status: int, what: str, *, headers: dict[str, str] | None = None, **lines: str | None) -> Answer:
    """An error as JSON: `{"error": what, "found": ..., "valid": ...}`, as far as these are known."""
    body = {"error": what, **{name: line for name, line in lines.items() if line is not None}}
    return Answer(status, body, headers=headers or {})
