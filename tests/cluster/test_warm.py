"""The warm process and its launcher, with a small program in the place of Ray's worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from raycls.cluster.warm import keep, launcher

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it forks")

_COMMAND = """
import os, sys, types
from pathlib import Path
from raycls.cluster.warm.keep import can_fork, keep_warm, lent

sys.modules["shared"] = types.ModuleType("shared")
def ready():
    sys.modules["shared"].ready = os.environ["TOLD"]
assert can_fork()
keep_warm(ready)
keep_warm(ready)  # there is one already
print(os.getpid(), flush=True)
for folder in sys.argv[1:]:
    with lent(folder) as variables:
        print(variables["RAYCLS_WARM_SOCKET"], flush=True)
        sys.stdin.readline()
    print("left", flush=True)
    sys.stdin.readline()
"""
_WORKER = """
import os, sys, threading, time
import shared
print(shared.ready, sys.argv, os.getcwd(), sys.path[0], __name__, __file__, sys.stdin.read(), flush=True)
print("to stderr", file=sys.stderr)
if "wait" in sys.argv:
    time.sleep(60)
threading.Thread(target=lambda: (time.sleep(0.2), print("thread", flush=True))).start()
import atexit
atexit.register(print, "at exit")
sys.exit(int(sys.argv[1]))
"""


@dataclass
class Command:
    """A command with a warm process, and how its workers are started."""

    process: subprocess.Popen[str]
    folder: Path
    environment: dict[str, str]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def start(self, *words: str, socket: str = "") -> subprocess.Popen[str]:
        environment = {**self.environment, **({launcher.SOCKET: socket} if socket else {})}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, launcher.__file__, *words],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd=self.folder,
            env=environment,
        )


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    worker = tmp_path / "worker.py"
    worker.write_text(_WORKER)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "one", "two"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    made = Command(process, tmp_path, {**os.environ, "TOLD": "over there", launcher.WORKER: str(worker)})
    assert int(made.line()) == process.pid
    try:
        yield made
    finally:
        process.kill()
        process.communicate()


def _ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not alive


def test_a_worker_is_a_fork_with_all_that_the_launcher_had(command: Command) -> None:
    """Its words, variables, folder, streams and end; and what the command had imported."""
    socket = command.line()
    started = command.start("3", "--flag", socket=socket)
    said, errors = started.communicate("typed", timeout=30)
    worker, folder = str(command.folder / "worker.py"), str(command.folder)
    expected = f"over there {[worker, '3', '--flag']} {folder} {folder} __main__ {worker} typed"
    assert said.splitlines() == [expected, "thread", "at exit"]
    assert errors == "to stderr\n"
    assert started.returncode == 3


def test_a_launcher_and_its_worker_end_together(command: Command) -> None:
    socket = command.line()
    started = [command.start("0", "wait", socket=socket) for _ in range(2)]
    for each in started:
        assert each.stdin is not None
        each.stdin.close()
        assert each.stdout is not None
        assert each.stdout.readline().startswith("over there")
    warm = psutil.Process(command.process.pid).children()
    assert len(warm) == 1
    workers = warm[0].children()
    assert len(workers) == 2
    assert all(os.getpgid(worker.pid) == worker.pid for worker in workers)  # Ray ends whole groups
    started[0].kill()
    assert started[0].wait(10) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while len(left := warm[0].children()) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(left) == 1
    left[0].kill()
    assert started[1].wait(10) == (-signal.SIGKILL) % 256
    for each in started:
        assert each.stdout is not None
        assert each.stderr is not None
        each.stdout.close()
        each.stderr.close()


def test_nothing_outlives_the_ray_or_the_command(command: Command) -> None:
    first = command.line()
    running = command.start("0", "wait", socket=first)
    assert running.stdin is not None
    running.stdin.close()
    assert running.stdout is not None
    assert running.stdout.readline().startswith("over there")
    command.go_on()  # its Ray has ended
    assert command.line() == "left"
    assert running.wait(10) != 0
    command.go_on()  # another one starts
    second = command.line()
    assert second != first
    other = command.start("0", "wait", socket=second)
    assert other.stdin is not None
    other.stdin.close()
    assert other.stdout is not None
    assert other.stdout.readline().startswith("over there")
    below = psutil.Process(command.process.pid).children(recursive=True)
    assert len(below) == 2
    command.process.kill()
    assert _ended(below)
    assert other.wait(10) != 0
    for each in (running, other):
        assert each.stdout is not None
        assert each.stderr is not None
        each.stdout.close()
        each.stderr.close()


def test_without_a_warm_process_a_worker_starts_by_itself(tmp_path: Path) -> None:
    """No socket, or one on which nobody answers any more."""
    worker = tmp_path / "worker.py"
    worker.write_text("import sys; print(sys.argv); sys.exit(4)")
    for socket in ("", str(tmp_path / "gone")):
        variables = {**os.environ, launcher.WORKER: str(worker), **({launcher.SOCKET: socket} if socket else {})}
        words = [sys.executable, launcher.__file__, "a b"]
        done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (4, f"{[str(worker), 'a b']}\n", "")


def test_a_process_with_ray_or_threads_of_others_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(keep, "_GPU", "/nowhere")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)

    def can_fork(own: int = 2, all_: int = 5) -> bool:
        monkeypatch.setattr(threading, "active_count", lambda: own)
        monkeypatch.setattr(keep, "_threads", lambda: all_)
        return keep.can_fork()

    assert can_fork()  # the display's thread, and three of numpy's
    assert not can_fork(own=3)
    assert not can_fork(all_=6)  # OpenMP's
    monkeypatch.setattr(keep, "_GPU", os.devnull)
    assert not can_fork()
    monkeypatch.setattr(keep, "_GPU", "/nowhere")
    monkeypatch.setitem(sys.modules, "ray", sys)
    assert not can_fork()


def test_without_room_for_another_process_nothing_is_kept_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "too many processes")

    monkeypatch.setattr(os, "fork", fork)
    keep.keep_warm(lambda: None)
    with keep.lent("/nowhere") as variables:
        assert variables == {}
