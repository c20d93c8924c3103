"""The command's side: it makes the warm process, and lends it to the private Ray that it starts."""

from __future__ import annotations

import atexit
import gc
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raycls.cluster.warm import launcher
from raycls.cluster.warm.process import END, SERVE, serve

__all__ = ["can_fork", "keep_warm", "lent"]

_control: list[socket.socket] = []
"""The line to the warm process, once there is one."""
_GPU = "/dev/nvidiactl"
_THREADS = 2
"""The main one, and the one that draws the display, which holds nothing that a fork needs."""


def can_fork() -> bool:
    """Whether this process may be forked: it runs no threads but its own, and neither Ray nor a GPU's driver in it.

    Elsewhere workers start as Ray starts them. With a GPU in the machine too: nobody has tried it there.
    """
    if not sys.platform.startswith("linux") or "ray" in sys.modules or os.path.exists(_GPU):
        return False
    own = threading.active_count()
    alone = threading.current_thread() is threading.main_thread() and own <= _THREADS
    return alone and _threads() <= own + (os.cpu_count() or 1) - 1  # numpy's matrix products can be forked


def _threads() -> int:
    """How many threads this process has, in Python and below it."""
    return len(os.listdir("/proc/self/task"))


def keep_warm(ready: Callable[[], None]) -> None:
    """Fork the warm process from this one, with everything that is imported now; `ready` is called in each worker.

    It ends with this process. Nothing is done where there is one already; `can_fork` has to be asked before.
    """
    if _control:
        return
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the display's thread
        try:
            child = os.fork()
        except OSError:  # too little memory, or too many processes: workers start without it
            ours.close()
            theirs.close()
            return
    if child == 0:
        ours.close()
        try:
            serve(theirs, ready)
        finally:
            os._exit(1)  # nothing of what called this is done twice
    theirs.close()
    gc.freeze()  # what is imported is no garbage: a collection need not look at it
    _control.append(ours)
    atexit.register(_end, os.getpid(), child)


def _end(command: int, child: int) -> None:
    """Let it end before the command does, so that nothing is left of that."""
    gc.unfreeze()  # libraries complain of what they find alive at the end
    if os.getpid() == command:  # not another fork of it
        while _control:
            _control.pop().close()
        os.waitpid(child, 0)


@contextmanager
def lent(folder: str) -> Iterator[dict[str, str]]:
    """Have the warm process serve the Ray that keeps its files in `folder`, for the length of the block.

    The variables that its workers need; empty where there is no warm process. What it forked is gone afterwards.
    """
    if not _control:
        yield {}
        return
    path = os.path.join(folder, "warm")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(path)
            listening.listen(128)
            socket.send_fds(_control[0], [SERVE], [listening.fileno()])
    except OSError:  # somebody has ended it: workers start without it
        _control.pop().close()
        yield {}
        return
    from ray._private import workers

    try:
        yield {launcher.SOCKET: path, launcher.WORKER: str(Path(workers.__path__[0]) / "default_worker.py")}
    finally:
        try:
            _control[0].send(END)
        except OSError:
            _control.pop().close()
