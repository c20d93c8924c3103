"""The guard: what was started under it ends with its driver, and nothing else does."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
from harness.processes import Command, start

_DRIVER = """
import subprocess, sys, time
from raycls.cluster.private import guarded

sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
outside = subprocess.Popen(sleep, start_new_session=True)
with guarded(sys.argv[1]):
    # Two generations, the second in a session of its own and orphaned, as processes of Ray can be.
    options = "start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    parent = f"import subprocess, sys; print(subprocess.Popen(sys.argv[1:], {options}).pid)"
    orphan = int(subprocess.run([sys.executable, "-c", parent, *sleep], capture_output=True, text=True).stdout)
    inside = subprocess.Popen(sleep)
    print(outside.pid, inside.pid, orphan, flush=True)
    if len(sys.argv) > 2:
        inside.kill(), inside.wait()
        sys.exit(5)
    time.sleep(60)
"""


def begin(folder: Path, *words: str) -> tuple[list[int], Command]:
    folder.mkdir()
    (folder / "session").touch()
    command = start([sys.executable, "-c", _DRIVER, str(folder), *words], folder.parent)
    command.until(lambda: command.stdout.endswith("\n"), 30)
    return [int(pid) for pid in command.stdout.split()], command


def test_killed_driver_takes_its_ray_along(tmp_path: Path) -> None:
    (outside, inside, orphan), command = begin(tmp_path / "ray")
    with command:
        processes = [psutil.Process(inside), psutil.Process(orphan)]
        command.kill()
        gone, _ = psutil.wait_procs(processes, timeout=10)
        assert len(gone) == 2
        assert psutil.pid_exists(outside)
        end = time.monotonic() + 10
        while (tmp_path / "ray").exists():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_block_that_is_left_touches_nothing(tmp_path: Path) -> None:
    (_, _, orphan), command = begin(tmp_path / "ray", "leave")
    with command:
        assert command.wait(10) == 5
        time.sleep(0.5)
        assert psutil.pid_exists(orphan)
        assert (tmp_path / "ray" / "session").exists()
        assert not [process for process in command.processes() if "guard.py" in " ".join(process.cmdline())]


_AGENT = """
import subprocess, sys
from raycls.cluster.private import guarded

with guarded(sys.argv[1]):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    agent = subprocess.Popen([*sleep, f"--session-dir={sys.argv[1]}/r"], start_new_session=True)
    print(agent.pid, subprocess.Popen(sleep, start_new_session=True).pid)
"""


def test_an_agent_of_ray_that_stays_behind_is_ended(tmp_path: Path) -> None:
    """It would try for a minute to tell a server of its loneliness that is gone too."""
    folder = tmp_path / "ray"
    folder.mkdir()
    with start([sys.executable, "-c", _AGENT, str(folder)], tmp_path) as command:
        assert command.wait(20) == 0, command.said()
        agent, other = (int(pid) for pid in command.stdout.split())
        assert not psutil.pid_exists(agent) or psutil.Process(agent).status() == psutil.STATUS_ZOMBIE
        assert psutil.pid_exists(other)
        assert folder.exists()
