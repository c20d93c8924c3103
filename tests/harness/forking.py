"""The server that forks the processes of a test: kept for the next test where that would start the same one."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from typing import Any

__all__ = ["forking", "keep_or_stop"]

_PRELOADED = ["torch", "torchvision", "raycls.session.training", "tensorboardX.event_file_writer", "matplotlib.figure"]
"""What it imports once for all ranks of all tests: seconds of CPU each time."""
_server: Any = forkserver._forkserver  # type: ignore[attr-defined]
_preloaded: list[int] = []
"""The process ids of servers that were started for ranks."""
_started: dict[int, dict[str, str]] = {}
"""The environment of this process when each was started. Their own has what libraries write past Python too."""
_ensure_running = _server.ensure_running


def _noted() -> None:
    _ensure_running()
    _started.setdefault(_server._forkserver_pid, _environment())


_server.ensure_running = _noted


def forking() -> Any:
    """The context of processes that are forked with all of `_PRELOADED`; to be asked for each group of them."""
    context = multiprocessing.get_context("forkserver")
    if _server._forkserver_pid not in _preloaded and not multiprocessing.active_children():
        _server._stop()  # it was started for processes that decode, and would have each rank import torch
        context.set_forkserver_preload(_PRELOADED)
        _server.ensure_running()
        _preloaded.append(_server._forkserver_pid)
    return context


def keep_or_stop() -> None:
    """Stop the server whose processes would not have the environment of this one; it keeps that of its start."""
    pid = _server._forkserver_pid
    if pid is not None and not multiprocessing.active_children() and _started.get(pid) != _environment():
        _server._stop()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
