"""The warm process: a fork of the command, made once what workers import is imported, that forks each worker.

As in a fork server, its forks share what was imported, in time and in memory. It never imports Ray: what Ray reads when
it is imported, from the environment among others, each worker reads for itself, and no thread of Ray's is ever forked.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from raycls.cluster.warm.launcher import WORKER

__all__ = ["END", "SERVE", "serve"]

SERVE, END = b"s", b"e"
"""What the command says: here is the socket of a Ray that starts; it has ended."""
_REQUEST_SECONDS = 10.0


def serve(control: socket.socket, ready: Callable[[], None]) -> NoReturn:
    """Serve one Ray after another until the command is gone. `ready` is called first in each worker."""
    os.setsid()  # Ctrl-C is for the driver
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    gc.freeze()  # a collection would write into every page that is shared
    _Forks(control, ready).run()


class _Request(NamedTuple):
    """What a launcher was started as, and so its worker: see there."""

    words: list[str]
    environment: dict[str, str]
    folder: str
    blocked: list[int]
    """Signals."""
    niceness: int


class _Forks:
    """The workers that live, and the lines to their launchers."""

    def __init__(self, control: socket.socket, ready: Callable[[], None]) -> None:
        self._control, self._ready = control, ready
        self._listening: socket.socket | None = None
        self._lines: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(control, selectors.EVENT_READ, self._told)
        self._selector.register(self._woken, selectors.EVENT_READ, self._reap)

    def run(self) -> NoReturn:
        while True:
            for key, _ in self._selector.select():
                act: Callable[[], None] = key.data
                act()

    def _told(self) -> None:
        """A Ray starts, or has ended, or the command is gone: what was forked before goes too."""
        try:
            word, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        except OSError:
            word, fds = b"", []
        if self._listening is not None:
            self._selector.unregister(self._listening)
            self._listening.close()
            self._listening = None
        for child in self._lines:
            _kill(child)
        if not word:
            os._exit(0)
        if word == SERVE:
            self._listening = socket.socket(fileno=fds[0])
            self._selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        if self._listening is None:  # it was closed after the selector had seen it
            return
        line, _ = self._listening.accept()
        line.settimeout(_REQUEST_SECONDS)
        fds: list[int] = []
        try:
            head, fds, _, _ = socket.recv_fds(line, 8, 3)
            request = line.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
            asked = _Request(*json.loads(request))
            child = os.fork()
        except (OSError, ValueError):  # the launcher is gone, or starts a worker by itself
            line.close()
        else:
            if child == 0:
                self._leave()
                line.close()
                _work(asked, fds, self._ready)
            line.send(b"+")
            self._lines[child] = line
            self._selector.register(line, selectors.EVENT_READ, lambda: self._hung_up(child))
        finally:
            for number in fds:
                os.close(number)

    def _leave(self) -> None:
        """Nothing of this process stays open in a worker, or hears a signal for it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for end in (self._control, self._woken, self._wake, self._listening, *self._lines.values()):
            if end is not None:
                end.close()

    def _hung_up(self, child: int) -> None:
        """Ray has killed the launcher, by which it knows the worker until that has registered."""
        if child in self._lines:  # else it was reaped after the selector had seen this
            self._selector.unregister(self._lines[child])
            _kill(child)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            line = self._lines.pop(child)
            with contextlib.suppress(KeyError):  # where its launcher hung up
                self._selector.unregister(line)
            with contextlib.suppress(OSError):
                line.send(bytes([os.waitstatus_to_exitcode(status) % 256]))
            line.close()


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def _work(asked: _Request, fds: list[int], ready: Callable[[], None]) -> NoReturn:
    """Be the process that the launcher was started as, and run Ray's program for a worker in it."""
    code = 1
    try:
        os.setsid()  # when a worker has ended, Ray kills what is left of its group of processes
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        sys.stdout = open(1, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for as long as it lives
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(asked.environment)
        os.chdir(asked.folder)
        os.nice(asked.niceness - os.nice(0))
        signal.pthread_sigmask(signal.SIG_SETMASK, asked.blocked)
        ready()
        _run(os.environ[WORKER], asked.words)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            _finish()
        os._exit(code)


def _run(program: str, words: list[str]) -> None:
    """Run a Python file as the interpreter would."""
    sys.argv = [program, *words]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")


def _finish() -> None:
    """What the interpreter does at its end, in the order in which it does it."""
    end: Any = threading
    end._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
