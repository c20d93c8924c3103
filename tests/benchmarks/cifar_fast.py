"""Whole CPU-seconds of configs/cifar10_small.yaml and of faster recipes, with the test accuracy of each.

    tar -xf cifar10-jpeg.tar.xz -C FOLDER
    python tests/benchmarks/cifar_fast.py FOLDER

Each run is one `raycls train` from its start to its end: imports, listing the files, decoding, training, evaluations,
checkpoints, in user and system time. With `--workers 0`, the default, that is one process. With more it is the process
and everything below it, looked at twice a second, Ray's own processes too. A seed's variants run one after another, and
the order turns from seed to seed; a ratio is that of a seed, and its interval is by Student's t over the seeds.

`plain` is `cifar10_small.yaml` as it is. `quick` is `cifar10_fast.yaml` with the network and the time that pass the
accuracy of `plain`. `fast` is `cifar10_fast.yaml` as it is: `--variants fast` runs it alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import measure
import pictures
import psutil

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = (
    "model.args={widths: [32, 64, 128], depths: [2, 2, 2]}",
    "train.duration=110st",
    "data.batch_size=256",
    "optim.weight_decay=0.02",
)
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("cifar10_small", ()),
    "quick": ("cifar10_fast", QUICK),
    "fast": ("cifar10_fast", ()),
}
_TINY = ("train.duration=3ep", "schedule.warmup=0st", "data.batch_size=8")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="CIFAR-10 as images in train/CLASS and test/CLASS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain", "quick"])
    parser.add_argument("--workers", type=int, default=0, help="Ray workers; 0 trains in one process")
    parser.add_argument("--set", nargs="*", default=[], help="overrides for every run, such as train.amp=off")
    options = parser.parse_args(argv)
    if options.folder is None and not options.quick:
        parser.error("name the folder with the images")
    result: dict[str, Any] = {**measure.begin("cifar_fast"), "workers": options.workers, "runs": {}}
    runs: dict[str, list[dict[str, float]]] = result["runs"]
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = options.folder
        if options.quick:
            folder, options.seeds = pictures.write_folder(Path(scratch) / "images", {"train": 40, "test": 20}), [0]
        for number, seed in enumerate(options.seeds):
            for name in options.variants if number % 2 == 0 else reversed(options.variants):
                config, overrides = VARIANTS[name]
                words = [
                    *overrides,
                    *options.set,
                    *(_TINY if options.quick else ()),
                    f"data.source.path={folder.resolve()}",
                ]
                words += [f"run.storage={scratch}", f"run.name={name}-{seed}", f"run.seed={seed}"]
                words += [f"scale.workers={options.workers}"]
                run = _run(CONFIGS / f"{config}.yaml", words, Path(scratch) / f"{name}-{seed}")
                runs.setdefault(name, []).append(run)
                measure.say(
                    f"seed {seed} {name:6} test accuracy {run['test_accuracy']:.4f}, {run['cpu_seconds']:.1f} "
                    f"CPU-seconds, {run['wall_seconds']:.0f} s, load {os.getloadavg()[0]:.1f}"
                )
    _compare(result, options.variants)
    return measure.finish(result, options.json)


def _run(config: Path, words: list[str], place: Path) -> dict[str, float]:
    began = time.perf_counter()
    seconds = cpu_seconds([sys.executable, "-m", "raycls", "train", str(config), *words])
    lines = (place / "history.jsonl").read_text().splitlines()
    accuracy = [json.loads(line) for line in lines if '"kind":"evaluate"' in line][-1]["top1"]
    wall = time.perf_counter() - began
    return {"test_accuracy": accuracy, "cpu_seconds": round(seconds, 2), "wall_seconds": round(wall, 1)}


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of a command and of everything below it. RuntimeError where it does not end with 0."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seen: dict[psutil.Process, float] = {}
    before = measure.mine()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        try:
            while process.poll() is None:
                for each in _below(root):
                    with suppress(psutil.Error):
                        times = each.cpu_times()
                        seen[each] = times.user + times.system
                time.sleep(0.5)
        finally:
            process.terminate()  # of a command that has ended, nothing
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    waited = measure.mine() - before  # the command itself, and what it or we waited for, to the end
    return max(waited, sum(seen.values()))


def _below(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _compare(result: dict[str, Any], names: Sequence[str]) -> None:
    runs = result["runs"]
    for name in names:
        for what in ("test_accuracy", "cpu_seconds"):
            values = [run[what] for run in runs[name]]
            if len(values) > 1:
                result.setdefault("interval", {}).setdefault(name, {})[what] = found = measure.interval(values)
                measure.say(f"{name:6} {what} {sum(values) / len(values):.4f} (95 % {found[0]:.4f} to {found[1]:.4f})")
    if "plain" in names:
        for name in (name for name in names if name != "plain"):
            pairs = [(a["cpu_seconds"], b["cpu_seconds"]) for a, b in zip(runs[name], runs["plain"], strict=True)]
            result.setdefault("cpu_against_plain", {})[name] = found = measure.ratios(pairs)
            parts = [first / second for first, second in pairs]
            told = f", 95 % of the mean {measure.interval(parts)}" if len(parts) > 1 else ""
            measure.say(f"{name} against plain: CPU-seconds {measure.spread(found)}{told}")


if __name__ == "__main__":
    main()
