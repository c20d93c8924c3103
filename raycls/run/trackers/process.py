"""The process of one tracker: reads lines of JSON from the run, brings them to the tracker, and says how far it got.

The first line has the settings, each further one a `record`, the last one the `end`. Where the lines cease without
that, the run was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from raycls.errors import RayclsError
from raycls.run import history
from raycls.run.folder import RunFolder
from raycls.run.trackers.pump import Destination, Record, pump

__all__ = ["main"]

_WAITING = 2000
"""Lines that are kept here; more wait in the pipe and then in the run."""
_ORPHAN_SECONDS = 30.0
"""How long this process may outlive the run."""


def main() -> None:
    os.nice(5)  # the training comes first
    threading.Thread(target=_follow, args=(int(sys.argv[1]),), daemon=True).start()
    lines, say = _line_to_the_run()
    settings = json.loads(lines.readline() or "{}")
    if not settings:
        return
    inbox: queue.Queue[Record | None] = queue.Queue(_WAITING)
    threading.Thread(target=_read, args=(lines, inbox), daemon=True).start()
    held = _alone(settings)
    if _is_late(settings):
        return
    pump(_destination(settings), lambda: _past(settings), inbox, say)
    if held is not None:
        held.close()


def _alone(settings: dict[str, Any]) -> BinaryIO | None:
    """Wait for the tracker of the start before, which may outlive a run that was killed: both would make a run.

    The lock is a byte of the file with the id, and held until this process ends. Only for run folders on a disk.
    """
    if not settings["local"]:
        return None
    file = open(Path(settings["local"], RunFolder.TRACKERS), "r+b")  # noqa: SIM115 - kept open
    end = time.monotonic() + 2 * _ORPHAN_SECONDS
    while time.monotonic() < end:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, ("mlflow", "wandb").index(settings["kind"]))
            break
        except (BlockingIOError, PermissionError):
            time.sleep(0.1)
        except OSError:  # a file system without locks
            break
    return file


def _is_late(settings: dict[str, Any]) -> bool:
    """Whether a later start was faster, which brings what this one would and says how the run ended."""
    if os.getppid() == int(sys.argv[1]):
        return False
    with suppress(RayclsError):
        return any(start.attempt > settings["attempt"] for start in RunFolder(settings["folder"]).attempts())
    return False


def _read(lines: TextIO, inbox: queue.Queue[Record | None]) -> None:
    last: Record | None = None
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:  # torn by the end of the run
            break
        if "end" in line:
            last = line
            break
        inbox.put(line)
    inbox.put(last)


def _follow(run: int) -> None:
    """End this process some time after that of the run, whatever hangs here; the run may be gone already."""
    while os.getppid() == run:
        time.sleep(1)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def _line_to_the_run() -> tuple[TextIO, Callable[..., None]]:
    """What the run writes, and how to answer. A library that prints or asks something must not get in between."""
    lines, stdout = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)

    def say(**facts: Any) -> None:
        try:
            stdout.write(json.dumps(facts) + "\n")
            stdout.flush()
        except OSError:  # the run was killed
            return

    return lines, say


def _past(settings: dict[str, Any]) -> list[Record]:
    if settings["attempt"] == 1:
        return []
    records = history.read(RunFolder(settings["folder"]))
    return [record for record in records if record.get("attempt", 0) < settings["attempt"]]


def _destination(settings: dict[str, Any]) -> Destination:
    if settings["kind"] == "mlflow":
        from raycls.run.trackers.mlflow import Mlflow

        return Mlflow(settings)
    from raycls.run.trackers.wandb import Wandb

    return Wandb(settings)


if __name__ == "__main__":
    main()
