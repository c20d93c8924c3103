"""What Ray reads from the environment: set before it is imported, changed for one cluster, and restored."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["changed", "forget_token", "joined_address", "prepare_environment"]

_QUIET = {
    # Without this Ray uploads the working directory and builds a new environment under `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What is left of a driver that leaves Ray must not start another one.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_COLOR_PREFIX": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # How soon the end, and the death, of a worker is noticed, in seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # For so long Ray waits for the place of a group, also on a node that has just died; then it is counted again.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray keeps as many processes as there are CPUs, those of actors counted: with few of them it would end a decoding
    # process after every task, and start another one, which takes seconds.
    "RAY_num_workers_soft_limit": "64",
}


def joined_address() -> str:
    """The cluster that `RAY_ADDRESS` says to join; empty where a private Ray is to be started."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def prepare_environment() -> None:
    """Set what Ray reads when it is imported, unless the user has set it. Call it before `import ray`."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    _let_bytecode_be_kept()


@contextmanager
def changed(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables` for the length of the block, then the environment as it was; Ray's token and mode are read anew."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if any(name.startswith("RAY_AUTH_") for name in variables):
            forget_token()


def forget_token() -> None:
    """Ray caches mode and token of a process; the next cluster has others."""
    from ray import _raylet

    raylet: Any = _raylet  # compiled, without type hints
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    raylet.Config.initialize("")


def _let_bytecode_be_kept() -> None:
    """Let the processes that Ray starts reuse each other's byte code.

    With PYTHONDONTWRITEBYTECODE (some containers set it) every process compiles torch and Ray again, which
    doubles the start of a run. Where the installation carries no byte code, a cache of the user's takes it.
    """
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.cached is None or os.path.exists(spec.cached):
        return
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("PYTHONPYCACHEPREFIX", os.path.join(cache, "raycls", "bytecode"))
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"]
    sys.dont_write_bytecode = False
