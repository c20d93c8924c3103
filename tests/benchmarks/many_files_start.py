"""One start of `many_files.py`, in a process that imports nothing else: trains a config, and prints what it took."""

from __future__ import annotations

import io
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from raycls.config.load import load
from raycls.launch.trainer import train
from raycls.screen.run import Display
from raycls.session import prepare


class Heard(Display):
    """Notes when the first step was done: seconds, and CPU-seconds of this process."""

    first = (0.0, 0.0)

    def trained(self, record: Any, *, evaluation_follows: bool = False) -> None:
        if record["step"] == 1:
            self.first = time.perf_counter(), time.process_time()


def main(config: str) -> None:
    listed = [0.0]
    for name in ("open_dataset", "pack"):
        setattr(prepare, name, _clocked(getattr(prepare, name), listed))
    imports = _resident()
    began, used = time.perf_counter(), time.process_time()
    display = Heard(io.StringIO())
    train(load(config).run, display=display)
    found = {
        "first_step_s": display.first[0] - began,
        "first_step_cpu_s": display.first[1] - used,
        "listed_cpu_s": listed[0],
        "resident_mib": _resident(),
        "most_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "imports_mib": imports,
    }
    print(json.dumps(found))


def _clocked(function: Any, into: list[float]) -> Any:
    def clocked(*args: Any, **more: Any) -> Any:
        before = time.process_time()
        try:
            return function(*args, **more)
        finally:
            into[0] += time.process_time() - before

    return clocked


def _resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main(sys.argv[1])
