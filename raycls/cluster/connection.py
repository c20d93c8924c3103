"""Ray itself: join the cluster that `RAY_ADDRESS` names, or start a private one for this run."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycls.cluster.environment import changed, forget_token, joined_address, prepare_environment
from raycls.cluster.growth import Growth, read
from raycls.cluster.lean import lean
from raycls.cluster.nodes import nodes, settle
from raycls.cluster.private import guarded
from raycls.cluster.signals import deferred
from raycls.cluster.token import token_file
from raycls.cluster.warm.keep import lent
from raycls.errors import LaunchError
from raycls.progress import progress
from raycls.quantities import cores

__all__ = ["Cluster", "running_cluster"]

_PREFIX = "raycls-"
_PROC = "/proc"
_FAILED = "failed"
"""Marks the folder of a private Ray that failed: an error named the logs in it, so it is kept for a while."""
_KEPT_SECONDS = 24 * 3600.0
_OF_A_PRIVATE_RAY = {
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody preempts it
}
"""What Ray reads, unless the user has set it."""
_TEMPORARY = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()  # noqa: S108 - mkdtemp makes a private folder


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to."""

    private: bool
    address: str
    resources: dict[str, float]
    logs: str
    """Folder of Ray's own logs: on this machine where the cluster is private."""
    nodes: tuple[dict[str, float], ...] = ()
    """The resources of each node that is alive."""
    growth: Growth = field(default_factory=Growth)

    @property
    def grows(self) -> bool:
        """Whether nodes come by themselves when they are asked for."""
        return self.growth.grows

    @property
    def gpus(self) -> int:
        """GPUs that are there, or that are known to come."""
        return int(max(self.resources.get("GPU", 0), self.growth.max_resources.get("GPU", 0)))


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Connect to Ray for the length of the block.

    With `RAY_ADDRESS` that cluster is joined and left again. Otherwise a private one is started, whatever
    else runs on this machine, and is gone afterwards: by `ray.shutdown`, or through the guard where
    this process is killed. Raises LaunchError where Ray cannot be reached or started.
    """
    prepare_environment()
    address = joined_address()
    with _joined(address) if address else _private() as cluster:
        try:
            yield cluster
        finally:
            progress("leaving Ray")


@contextmanager
def _joined(address: str) -> Iterator[Cluster]:
    mode = os.environ.get("RAY_AUTH_MODE") or ("token" if _has_token() else "disabled")
    import ray

    with changed({"RAY_AUTH_MODE": mode}), _quiet():
        try:
            _connect(address)
        except Exception as error:
            said = str(error).strip().splitlines()
            raise LaunchError(
                "the Ray cluster that RAY_ADDRESS names cannot be joined",
                found=f"{address}: {said[0] if said else type(error).__name__}",
                fix="check the address; a cluster with token authentication needs its token in RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH; without RAY_ADDRESS a private Ray is started",
            ) from error
        try:
            there: dict[str, float] = dict(ray.cluster_resources())
            growth = read(idle=not (there.get("CPU") or there.get("GPU")))
            if growth.grows:
                settle()
            yield Cluster(False, address, there, "the logs of the cluster", nodes(), growth)
        finally:
            _disconnect()


@contextmanager
def _private() -> Iterator[Cluster]:
    # A token of its own: nothing is written to the home directory, and nobody else can connect.
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    variables |= {name: os.environ.get(name, value) for name, value in _OF_A_PRIVATE_RAY.items()}
    _sweep()
    # Short, because sockets lie below it and their paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_TEMPORARY)
    keep = False
    try:
        with guarded(folder), lent(folder) as workers, changed(variables | workers), _quiet(), _started(folder) as here:
            yield here
    except LaunchError as error:
        keep = folder in str(error)  # its text names the logs
        if keep:
            Path(folder, _FAILED).touch()
        raise
    finally:
        if not keep:
            _remove(folder)


@contextmanager
def _started(folder: str) -> Iterator[Cluster]:
    import ray

    try:
        try:
            # Ray opens the folder that it is given to every user of the machine: one inside ours stays closed.
            inner = os.path.join(folder, "r")
            with lean():
                _connect("local", num_cpus=cores(), include_dashboard=False, _temp_dir=inner)
        except Exception as error:
            raise LaunchError(
                "Ray could not be started on this machine",
                found=str(error).strip() or type(error).__name__,
                fix=f"see the logs in {folder}; scale.workers=0 trains without Ray",
            ) from error
        logs = os.path.join(inner, "session_latest", "logs")
        yield Cluster(True, "local", dict(ray.cluster_resources()), logs, nodes())
    finally:
        _disconnect()


def _connect(address: str, **options: Any) -> None:
    """`ray.init`; signals wait for its end."""
    import ray

    forget_token()  # what Ray read when it was imported, if that was before
    with deferred():
        ray.init(address, **options, **_options())


def _disconnect() -> None:
    import ray

    with deferred():
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of the cluster out of stdout, where `log_to_driver=False` lets them through; logs have them."""
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _options() -> dict[str, Any]:
    import logging

    import ray

    return {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "logging_config": ray.LoggingConfig(log_level="ERROR"),
        "namespace": "raycls",
    }


def _has_token() -> bool:
    file = token_file()
    return file is None or bool(os.environ.get("RAY_AUTH_TOKEN_PATH")) or file.exists()


def _sweep() -> None:
    """Remove what runs that were killed left in the temporary folder, and the logs of those that failed long ago.

    Without /proc (not Linux) nobody can tell which of them still run: all are left.
    """
    if not os.path.isdir(f"{_PROC}/self"):
        return
    for folder in Path(_TEMPORARY).glob(f"{_PREFIX}*-*"):
        match = re.fullmatch(rf"{_PREFIX}(\d+)-\w+", folder.name)
        if match is None or os.path.exists(f"{_PROC}/{match[1]}"):
            continue
        with suppress(FileNotFoundError):  # another start sweeps too
            if folder.stat().st_uid == os.getuid() and not _failed_lately(folder):
                _remove(str(folder))


def _failed_lately(folder: Path) -> bool:
    mark = folder / _FAILED
    return mark.exists() and time.time() - mark.stat().st_mtime < _KEPT_SECONDS


def _remove(folder: str) -> None:
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)  # a process of Ray's that is just ending still writes there
