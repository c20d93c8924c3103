"""A pool of processes that is interrupted while they start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_COMMAND = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from operator import neg

from raycls.session.computing.pool import answers, opened


def interrupted(self):
    raise KeyboardInterrupt  # the processes are there, and nothing yet that would tell them to end


if __name__ == "__main__":
    ProcessPoolExecutor._start_executor_manager_thread = interrupted
    try:
        with opened(1, print, 0) as pool:
            list(answers(pool, neg, iter([1]), 1, []))
    except KeyboardInterrupt:
        print("ended", flush=True)
"""


def test_an_interrupt_while_processes_start_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(_COMMAND)
    done = subprocess.run(
        [sys.executable, "command.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ended"
