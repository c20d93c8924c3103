"""Ends a private Ray whose driver was killed.

Most of Ray follows its driver by itself, but two agents first try for a minute to report the loss to a server
that is gone too. The guard is a small process beside the driver: it waits for the end of a pipe that only the
driver holds, then kills what carries the mark of that Ray in its environment, and removes its folder.
Of 8 drivers that were killed at different moments, all processes were gone within 0.7 s with it; without it, and with
Ray's `gcs_rpc_server_reconnect_timeout_s` at 1, the 6 whose Ray was up left some for 61 to 63 s.
This file is also that process's program: it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["guarded", "is_private", "marked"]

_MARK = "RAYCLS_PRIVATE_RAY"
_PROC = "/proc"


@contextmanager
def guarded(folder: str) -> Iterator[None]:
    """Guard the Ray that is started in the block and keeps its files in `folder`.

    Where the block is left, Ray has a second to end, and agents that stay are killed: they would complain for a minute
    that they are alone. Nothing is removed then. Without /proc (not Linux) there is no guard.
    """
    if not os.path.isdir(f"{_PROC}/self"):
        yield
        return
    words = [sys.executable, "-I", "-S", __file__, folder]
    guard = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )
    # Without SPT_NOENV a process of Ray's that renames itself overwrites its environment, and the mark in it.
    marks = {_MARK: folder, "SPT_NOENV": "1"}
    from raycls.cluster.environment import changed  # here: the guard itself cannot import it

    try:
        with changed(marks):
            yield
    finally:
        guard.communicate(b"left")


def is_private() -> bool:
    """Whether the Ray that this process is connected to, as its driver or as a worker of it, was started for it."""
    from ray._private import worker

    folder, node = os.environ.get(_MARK), worker._global_node
    return bool(folder) and node is not None and node.get_session_dir_path().startswith(f"{folder}{os.sep}")


def _watch(folder: str) -> None:
    if sys.stdin.buffer.read(1):
        _end_agents(folder)
        return
    quiet = 0
    while quiet < 3:  # what is being started right now shows up a moment later
        left = marked(f"{_MARK}={folder}")
        _kill(left)
        quiet = 0 if left else quiet + 1
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _end_agents(folder: str) -> None:
    """Of what has the mark, only Ray's own programs: trackers have it too, and end by themselves."""
    end = time.monotonic() + 1.0
    while left := [process for process in marked(f"{_MARK}={folder}") if _is_rays(_command(process), folder)]:
        if time.monotonic() > end:
            _kill(left)
        time.sleep(0.05)


def _kill(processes: list[int]) -> None:
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:  # ended meanwhile
            continue


def _is_rays(command: str, folder: str) -> bool:
    return folder in command or command.startswith("ray::")  # as its agents call themselves once they are up


def _command(process: int) -> str:
    try:
        with open(f"{_PROC}/{process}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def marked(mark: str) -> list[int]:
    """The other processes of this user that were started with `mark`, `NAME=VALUE`, in their environment."""
    found = []
    for name in os.listdir(_PROC):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            with open(f"{_PROC}/{name}/environ", "rb") as file:  # empty for one that has ended and is not waited for
                if mark.encode() in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


if __name__ == "__main__":
    _watch(sys.argv[1])
