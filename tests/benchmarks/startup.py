"""Time to the first step of `raycls train`, cold: a fresh process each time, on a tiny set.

With two Ray workers and beside it in this process's mode (`scale.workers=0`). The stages are cut where the run folder
says what time it was: the config is read, the data looked at and the model checked (`checked`); Ray and its workers
run, and rank 0 has opened an attempt (`attempt`); the first step is done (`first step`); the last step is done; the
process has ended. CPU-seconds are those of the command and of every process below it, sampled five times a second.
Files are in the page cache, as they are in any second start.

    python tests/benchmarks/startup.py --rounds 3
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import pictures
import psutil

CONFIG = """\
data:
  source: {name: folder, path: images}
  batch_size: 32
  image_size: 32
augment:
  train: [{random_crop: {size: 32, padding: 4}}, horizontal_flip]
  eval: []
model: {name: tiny_cnn, args: {width: 16}}
train: {duration: 4st, micro_batches: 2}
evaluate: {every: off}
track: {log_every: 1st}
"""
STAGES = ("checked", "attempt", "first step", "last step", "ended")
EVERY = 0.2


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    result = {**measure.begin("startup"), "runs": {}, "bytecode_kept": not os.environ.get("PYTHONDONTWRITEBYTECODE")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures.write_folder(folder / "images", {"train": 96, "val": 32})
        (folder / "tiny.yaml").write_text(CONFIG)
        for turn in range(options.rounds):
            for workers in options.workers[:: 1 if turn % 2 == 0 else -1]:
                run = _start(folder, f"workers-{workers}-{turn}", workers)
                result["runs"].setdefault(workers, []).append(run)
    result["median"] = {workers: _median(runs) for workers, runs in result["runs"].items()}
    for workers, stages in result["median"].items():
        name = f"{workers} Ray workers" if workers else "in this process's mode"
        parts = ", ".join(f"{stage} {wall:.1f} s ({cpu:.1f})" for stage, (wall, cpu) in stages.items())
        count = len(result["runs"][workers])
        measure.say(f"{name}: {parts}; wall seconds since the command (CPU-seconds), medians of n={count}")
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 0])
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.workers = 1, [0]
    return options


def _start(folder: Path, name: str, workers: int) -> dict[str, Any]:
    """Run the command; wall and CPU-seconds from its start to the end of each stage."""
    words = ["train", "tiny.yaml", "run.storage=runs", f"run.name={name}", f"scale.workers={workers}"]
    log = folder / f"{name}.log"
    began = time.time()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "raycls", *words], cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
        samples = _watch(process, began)
    if process.returncode:
        raise SystemExit(f"raycls train ended with {process.returncode}:\n{log.read_text()}")
    run = folder / "runs" / name
    steps = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    trained = [record["time"] for record in steps if record["kind"] == "train"]
    moments = (
        json.loads((run / "env.json").read_text())["time"],
        json.loads((run / "attempts.jsonl").read_text().splitlines()[0])["time"],
        trained[0],
        trained[-1],
        began + samples[-1][0],
    )
    walls = [moment - began for moment in moments]
    return {
        "wall_seconds": dict(zip(STAGES, (round(wall, 3) for wall in walls), strict=True)),
        "cpu_seconds": dict(zip(STAGES, (round(_at(samples, wall), 2) for wall in walls), strict=True)),
    }


def _watch(process: subprocess.Popen[bytes], began: float) -> list[tuple[float, float]]:
    """(seconds since `began`, CPU-seconds of the process and all below it so far), until it ends."""
    used: dict[tuple[int, float], float] = {}
    samples = [(0.0, 0.0)]
    top = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            below = [top, *top.children(recursive=True)]
        except psutil.Error:
            below = []
        for one in below:
            try:
                times = one.cpu_times()
                used[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        samples.append((time.time() - began, sum(used.values())))
        time.sleep(EVERY)
    samples.append((time.time() - began, sum(used.values())))
    return samples


def _at(samples: Sequence[tuple[float, float]], wall: float) -> float:
    """The CPU-seconds at a moment: of the first sample that is not before it."""
    return next((cpu for moment, cpu in samples if moment >= wall), samples[-1][1])


def _median(runs: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    return {
        stage: (
            statistics.median(run["wall_seconds"][stage] for run in runs),
            statistics.median(run["cpu_seconds"][stage] for run in runs),
        )
        for stage in STAGES
    }


if __name__ == "__main__":
    main()
