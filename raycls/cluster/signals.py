"""SIGINT and SIGTERM while Ray starts or ends: they wait until it has done so.

An exception out of the middle of `ray.init` leaves a half of Ray behind, whose end can crash the process: of SIGTERM at
five moments two ended with SIGABRT, of SIGINT one with SIGSEGV (Ray 2.60). Two parts of Ray take SIGTERM for themselves
meanwhile: `ray._private.node` in Python, and its core by a handler in C that writes a trace and ends the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["deferred"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_DEADLINE = 20.0
"""Seconds that Ray has after a signal: Kubernetes sends SIGKILL after 30. The guard ends the rest of a private Ray."""
_INSTALL = "_ZN3ray6RayLog27InstallFailureSignalHandlerEPKcb"
"""`ray::RayLog::InstallFailureSignalHandler(const char*, bool)`, which does nothing from the second call on."""
_NO_NAME = b""


@contextmanager
def deferred() -> Iterator[None]:
    """The first signal is kept, and delivered to whoever listened before once the block is left.

    Where nobody did, SIGTERM is `SystemExit(143)`. The process ends at once with 128 + N by a second signal, or where
    the block takes longer than the deadline. In another thread than the main one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _NUMBERS}
    kept: list[int] = []
    ended = threading.Event()

    def keep(number: int, frame: FrameType | None) -> None:
        kept.append(number)
        if len(kept) > 1:
            for each in kept:
                with suppress(BaseException):  # whoever listens may have something to leave tidy
                    _deliver(each, before[each], frame)
            os._exit(128 + number)

    watch = threading.Thread(target=_watch, args=(kept, ended), daemon=True)
    with _left_alone():
        _listen({number: keep for number, handler in before.items() if handler not in (None, signal.SIG_IGN)})
        watch.start()
        try:
            yield
        finally:
            ended.set()
            _listen(before)
            for number in kept:
                _deliver(number, before[number], None)


def _listen(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # of another library, which Python cannot set again
            signal.signal(number, handler)


def _deliver(number: int, handler: Any, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        raise SystemExit(128 + number)


def _watch(kept: list[int], ended: threading.Event) -> None:
    since = None
    while not ended.wait(0.2):
        since = time.monotonic() if kept and since is None else since
        if since is not None and time.monotonic() - since > _DEADLINE:
            os._exit(128 + kept[0])


@contextmanager
def _left_alone() -> Iterator[None]:
    """Ray takes no signal for itself in the block."""
    from ray import _raylet
    from ray._private import utils

    install = getattr(ctypes.CDLL(_raylet.__file__), _INSTALL, None)
    if install is not None:  # before we listen, so that it is not done in the middle of `ray.init`
        install(_NO_NAME, False)
    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
