"""Whether a Ray can be joined at all: tried in a process of its own, because a frozen one holds who joins it."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["hanging"]

_PROGRAM = """
from raycls.cluster.connection import running_cluster
try:
    with running_cluster():
        print("joined")
except Exception:
    print("raised")
"""


def hanging(address: str, seconds: float) -> str:
    """Why a process that joins the Ray at `address` would wait for ever, or be ended by Ray; empty where neither.

    An error that Ray raises is none of the two.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "RAY_ADDRESS": address},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{address} does not answer within {seconds:g} s"
    if done.stdout.split()[-1:] in (["joined"], ["raised"]):
        return ""
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"{address} cannot be used: {said[-1][:300] if said else 'no reason given'}"
