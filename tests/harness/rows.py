"""Rows of the doctor: what a test expects of one."""

from __future__ import annotations

from raycls.cluster.ask import Unanswered
from raycls.doctor.cluster_rows import Row

FROZEN = Unanswered("is silent")


def says(row: Row, verdict: str, *words: str) -> None:
    """Checks a row: its verdict, what it says, and that what is not well has a remedy."""
    assert row.verdict == verdict, row
    for word in words:
        assert word in row.found, row.found
    assert row.is_well == (verdict in ("ok", "warning", "skipped"))
    if verdict in ("warning", "wrong", "unknown"):
        assert row.fix, row
