"""Commands under test, and every process that belongs to them: found by a mark in the environment, then by descent.

Ray's processes outlive their parents and rename themselves, so neither a process tree nor a command line finds
them all. What they do keep is the environment of the process that started them.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

MARK = "RAYCLS_TEST_MARK"


@dataclass
class Command:
    """One process under test with its output in files, in a session of its own. A context manager.

    Leaving the context kills whatever of it is still there: tests say with `assert_gone` that nothing is.
    """

    process: subprocess.Popen[bytes]
    mark: str
    out: Path
    err: Path
    began: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(50):
            left = self.processes()
            if not left and self.process.poll() is not None:
                return
            for process in left:
                _signal(process, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """Every process of this command that runs, itself included."""
        return marked(self.mark)

    def wait(self, seconds: float) -> int:
        """The exit code; an AssertionError with the output where it takes longer than `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s\n{self.said()}") from None

    def until(self, happened: Callable[[], bool], seconds: float = 150.0) -> None:
        """Wait until `happened()`; an AssertionError where the command ends before, or it takes longer."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None or happened(), f"ended with {self.process.returncode}\n{self.said()}"
            assert time.monotonic() < end, f"it did not happen within {seconds:g} s\n{self.said()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL for the command itself and for nothing else."""
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        """SIGKILL for the command and all of its processes, stopped first so that none reacts to the others' end."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in self.processes():
                _signal(process, number)
        for process in self.processes():  # of a fork that was under way
            _signal(process, signal.SIGKILL)
        self.process.wait()

    def assert_gone(self, seconds: float) -> float:
        """Wait until no process of this command is left; the seconds that it took."""
        return assert_gone(self.mark, seconds)

    def leftovers(self) -> list[Path]:
        """What a private Ray of this command has left in the temporary folder."""
        return sorted(Path("/tmp").glob(f"raycls-{self.process.pid}-*"))

    @property
    def stdout(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def said(self) -> str:
        """Both outputs, for the message of an assertion."""
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def start(
    words: Sequence[str], folder: Path, *, name: str = "command", env: dict[str, str] | None = None, mark: str = ""
) -> Command:
    """Start `words` in `folder`, with `env` added to this process's environment; outputs go to `<name>.out/.err`.

    A variable whose value in `env` is empty is taken out of the environment.
    """
    mark = mark or secrets.token_hex(16)
    variables = {**os.environ, **(env or {}), MARK: mark}
    variables = {key: value for key, value in variables.items() if value or key not in (env or {})}
    variables.pop("RAYCLS_WORKDIR", None)  # a test that trained in this process left it
    variables["SPT_NOENV"] = "1"  # a process that renames itself keeps its environment
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            list(words),
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    return Command(process, mark, out, err)


def raycls(folder: Path, *words: str, name: str = "raycls", env: dict[str, str] | None = None) -> Command:
    """Start `raycls words` in `folder`."""
    return start([sys.executable, "-m", "raycls", *words], folder, name=name, env=env)


def marked(mark: str) -> list[psutil.Process]:
    """The processes that run with `mark` in their environment; one that has ended and waits for its parent does not."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue
    return found


def assert_gone(mark: str, seconds: float) -> float:
    """Wait until no process with `mark` is left; the seconds that it took. AssertionError names those that stay."""
    began = time.monotonic()
    while left := marked(mark):
        waited = time.monotonic() - began
        assert waited < seconds, f"left after {waited:.0f} s: {[describe(process) for process in left]}"
        time.sleep(0.1)
    return time.monotonic() - began


def describe(process: psutil.Process) -> str:
    """`pid title` of a process, as far as it can be told."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return f"{process.pid} (gone)"


def titled(processes: Sequence[psutil.Process], text: str) -> list[psutil.Process]:
    """Those of `processes` that have `text` in their command line, which for a Ray worker is its title."""
    return [process for process in processes if text in describe(process)]


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
