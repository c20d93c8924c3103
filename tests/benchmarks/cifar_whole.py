"""Whole runs on CIFAR-10 as files, from the start of the process to its end: raycls, an older build, plain PyTorch.

    python tests/benchmarks/cifar_whole.py FOLDER --before ../old/.venv/bin/python --width 16

All train `configs/cifar10_small.yaml` for one epoch of the files in FOLDER and evaluate the test split once, with one
thread for the steps and whoever else makes the samples: raycls in this process's mode (`scale.workers=0`), and
`cifar.py` with a `DataLoader` of two processes. `--width` is that of the network: the fewer channels, the more of a run
is data. Variants take turns, the order turns too; a ratio is that of a turn. `data-wait` is the share of the time of
steps that raycls waited for data.
"""

from __future__ import annotations

import json
import os
import resource
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
from cifar import CONFIG

_PLAIN = Path(__file__).parent / "cifar.py"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    result: dict[str, Any] = {**measure.begin("cifar_whole"), "width": options.width, "runs": {}, "ratios": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = options.folder or pictures.write_folder(Path(scratch) / "images", {"train": 40, "test": 20})
        variants: dict[str, str] = {"raycls": sys.executable, "plain": ""}
        variants |= {"before": options.before} if options.before else {}
        for turn in range(options.rounds):
            for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
                run = _run(variants[name], folder.resolve(), options, Path(scratch) / f"{name}-{turn}")
                result["runs"].setdefault(name, []).append(run)
                measure.say(f"{name:7} {run}, load {os.getloadavg()[0]:.1f}")
    for name in result["runs"].keys() - {"raycls"}:
        pairs = list(zip(result["runs"]["raycls"], result["runs"][name], strict=True))
        found = {kind: measure.ratios([(a[kind], b[kind]) for a, b in pairs]) for kind in ("wall", "cpu")}
        result["ratios"][name] = found
        measure.say(f"raycls by {name}: wall {measure.spread(found['wall'])}, CPU {measure.spread(found['cpu'])}")
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="holds train/<class> and test/<class>")
    parser.add_argument("--before", metavar="PYTHON", help="the interpreter of an older build to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.width = 1, 8
    elif options.folder is None:
        parser.error("name the folder with the images")
    return options


def _run(python: str, folder: Path, options: Any, place: Path) -> dict[str, Any]:
    """Seconds and CPU-seconds of a command; `python` is empty for plain PyTorch."""
    words = [python, "-m", "raycls", "train", str(CONFIG), f"data.source.path={folder}", f"run.storage={place}"]
    words += ["run.name=run", "scale.workers=0", "train.duration=1ep", "schedule.warmup=0.1ep", "track.log_every=10st"]
    words += [f"model.args.width={options.width}", *(["data.batch_size=16"] if options.quick else [])]
    if not python:
        words = [sys.executable, str(_PLAIN), str(folder), "--epochs=1", "--threads=1", f"--width={options.width}"]
        words += ["--quick"] if options.quick else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Not from a checkout: an interpreter would import the raycls of that.
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=place.parent)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = {"wall": round(wall, 2), "cpu": round(cpu, 2)}
    if python:
        lines = map(json.loads, (place / "run" / "history.jsonl").read_text().splitlines())
        waits = [line["data_wait"] for line in lines if line["kind"] == "train"]
        found["data_wait"] = round(statistics.median(waits[1:] or waits), 4)
    return found


if __name__ == "__main__":
    main()
