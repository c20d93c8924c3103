"""The process of one tracker: reads the history of the run as it grows, and brings it to the tracker.

On stdin lies a file with the settings, to which the run adds how it ended; on stdout one that says how far this process
got. A run that is gone without such a word was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from raycls.run.folder import RunFolder
from raycls.run.trackers.delivery import Destination, Tail, deliver, words

__all__ = ["main"]

_ORPHAN_SECONDS = 30.0
"""How long this process may outlive the run."""


def main() -> None:
    os.nice(5)  # the training comes first
    threading.Thread(target=_follow, args=(int(sys.argv[1]),), daemon=True).start()
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not get in between

    def say(**facts: Any) -> None:
        said.write(json.dumps(facts) + "\n")
        said.flush()

    settings = words()[0]
    held = _alone(settings)
    deliver(Tail(settings, int(sys.argv[1])), lambda: _destination(settings), say)
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


def _follow(run: int) -> None:
    """End this process some time after that of the run, whatever hangs here; the run may be gone already."""
    while os.getppid() == run:
        time.sleep(1)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def _destination(settings: dict[str, Any]) -> Destination:
    if settings["kind"] == "mlflow":
        from raycls.run.trackers.mlflow import Mlflow

        return Mlflow(settings)
    from raycls.run.trackers.wandb import Wandb

    return Wandb(settings)


if __name__ == "__main__":
    main()
