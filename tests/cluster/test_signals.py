"""Signals while Ray starts: kept until it has, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from harness.processes import start

from raycls.cluster import connection

_MOMENTS = """
import json, os, signal
from ray import _raylet
from ray._private import services, worker
from raycls.cluster.connection import running_cluster
from raycls.cluster.environment import prepare_environment

prepare_environment()
core = _raylet.CoreWorker

def sending(function):
    def call(*words, **more):
        found = function(*words, **more)
        if numbers:
            os.kill(os.getpid(), numbers.pop())
        return found
    return call

def during(owner, name, number, before):
    signal.signal(number, before)
    numbers.append(number)
    inner = getattr(owner, name)
    setattr(owner, name, sending(inner))
    reached = False
    try:
        with running_cluster():
            reached = True
    except (KeyboardInterrupt, SystemExit) as ending:
        left = [type(ending).__name__, getattr(ending, "code", None)]
    else:
        left = ["none", None]
    setattr(owner, name, inner)
    same = signal.getsignal(number) is before
    print(json.dumps([name, number, *left, reached, numbers, kept[:], same]), flush=True)
    kept.clear()

numbers, kept = [], []
keep = lambda number, frame: kept.append(number)
during(_raylet, "CoreWorker", signal.SIGTERM, signal.SIG_DFL)
during(_raylet, "CoreWorker", signal.SIGINT, signal.default_int_handler)
during(services, "start_gcs_server", signal.SIGTERM, keep)
during(worker, "disconnect", signal.SIGINT, signal.default_int_handler)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_signal_at_any_moment_of_a_start_waits_for_its_end(tmp_path: Path) -> None:
    with start([sys.executable, "-c", _MOMENTS], tmp_path, env={"RAY_ADDRESS": ""}) as command:
        assert command.wait(250) == 0, command.said()
        command.assert_gone(5)
        assert not command.leftovers()
    assert [json.loads(line) for line in command.stdout.splitlines()] == [
        ["CoreWorker", 15, "SystemExit", 143, False, [], [], True],
        ["CoreWorker", 2, "KeyboardInterrupt", None, False, [], [], True],
        ["start_gcs_server", 15, "none", None, True, [], [15], True],
        ["disconnect", 2, "KeyboardInterrupt", None, True, [], [], True],
    ]
    assert not command.stderr


def _starting(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """A `ray.init` that takes SIGTERM for itself, as Ray's does, and is sent these signals."""
    import ray
    from ray._private import utils

    def init(*words: Any, **more: Any) -> None:
        utils.set_sigterm_handler(lambda *_: os._exit(1))
        for number in numbers:
            signal.raise_signal(number)

    monkeypatch.setattr(ray, "init", init)


@pytest.mark.parametrize(
    ("number", "before", "kind", "code"),
    [
        (signal.SIGTERM, signal.SIG_DFL, SystemExit, 143),
        (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt, None),
    ],
)
def test_who_did_not_listen_is_left_as_by_the_signal(
    number: int, before: Any, kind: type[BaseException], code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _starting(monkeypatch, number)
    outside = signal.signal(number, before)
    try:
        with pytest.raises(kind) as caught:
            connection._connect("local")
        assert getattr(caught.value, "code", None) == code
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outside)


def test_who_listened_is_told_once_ray_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    _starting(monkeypatch, signal.SIGTERM)
    outside = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        connection._connect("local")
    finally:
        signal.signal(signal.SIGTERM, outside)
    assert told == [signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _starting(monkeypatch, signal.SIGINT)
    outside = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection._connect("local")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, outside)


def test_another_thread_changes_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda *words, **more: None)
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=connection._connect, args=("local",))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


_SILENT = """
import os, signal, sys, time
from raycls.cluster import signals
from raycls.launch.stopping import StopRequest

signals._DEADLINE = 0.5
with StopRequest(lambda: print("tidied", flush=True)), signals.deferred():
    for _ in sys.argv[1:]:
        os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(60)
"""


@pytest.mark.parametrize(("numbers", "said"), [(["15"], ""), (["2", "2"], "tidied\n")])
def test_a_start_that_is_silent_ends_by_the_deadline_or_a_second_signal(
    numbers: list[str], said: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    with start([sys.executable, "-c", _SILENT, *numbers], tmp_path) as command:
        assert command.wait(50) == 128 + int(numbers[0]), command.said()
    assert time.monotonic() - began < 50
    assert command.stdout == said
