"""How long a start takes: to the first line, the first step, the end; by process; and beside other starts.

    python tests/benchmarks/startup.py --rounds 3 --before ../old/.venv/bin/python --torchrun --demo --commands

`raycls train` on a tiny set, a fresh process each time, with two Ray workers and in this process's mode
(`scale.workers=0`); by an older build, whose interpreter is given; the same network under `torchrun`; `raycls demo`;
and the short commands. Variants take turns, and ratios are those within turns. The stages are cut where the run folder
says what time it was: the config is read, the data looked at and the model checked (`checked`); Ray and its workers
run, and rank 0 has opened an attempt (`attempt`); the first step is done; the last step is done; the process has ended.

The floor is a process that does nothing but import torch, and one that starts and leaves Ray, once each. Files are in
the page cache, as they are in any second start; with `--cold` no process finds the byte code of another start.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import pictures
import watching

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
_TORCH = "import torch"
_RAY = """
from raycls.cluster.connection import running_cluster
with running_cluster():
    pass
"""
_PEER = Path(__file__).parent / "startup_torchrun.py"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    result = {**measure.begin("startup"), "runs": {}, "bytecode_kept": not os.environ.get("PYTHONDONTWRITEBYTECODE")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures.write_folder(folder / "images", {"train": 96, "val": 32})
        (folder / "tiny.yaml").write_text(CONFIG)
        for turn in range(options.rounds):
            variants = _variants(options)
            for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
                run = variants[name](folder, f"{name.replace(', ', '-').replace(' ', '-')}-{turn}", options.cold)
                result["runs"].setdefault(name, []).append(run)
        if options.commands:
            result["commands"] = _commands(folder, sys.executable)
    result["ratios"] = _ratios(result["runs"])
    _tell(result)
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 0])
    parser.add_argument("--before", metavar="PYTHON", help="the interpreter of an older build to compare with")
    parser.add_argument("--torchrun", action="store_true", help="the same network under torchrun, and the floor")
    parser.add_argument("--demo", action="store_true", help="raycls demo too")
    parser.add_argument("--commands", action="store_true", help="the commands that are over at once")
    parser.add_argument("--cold", action="store_true", help="without byte code")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.workers = 1, [0]
    return options


def _variants(options: Any) -> dict[str, Any]:
    """What takes turns: the name of a variant, and what runs it once."""
    found: dict[str, Any] = {}
    for workers in options.workers:
        found[f"workers {workers}"] = _train(sys.executable, workers)
        if options.before:
            found[f"before, workers {workers}"] = _train(options.before, workers)
    if options.torchrun:
        found["torchrun"] = _torchrun
        found["import torch"], found["start and leave Ray"] = _floor(_TORCH), _floor(_RAY)
    if options.demo:
        found["demo"] = _demo(sys.executable)
        if options.before:
            found["before, demo"] = _demo(options.before)
    return found


def _watch(words: Sequence[str], folder: Path, name: str, cold: bool) -> watching.Watched:
    cache = {"PYTHONPYCACHEPREFIX": str(folder / f"{name}.cache")} if cold else {}
    return watching.watch(words, folder, folder / f"{name}.log", {**os.environ, "OMP_NUM_THREADS": "1", **cache})


def _facts(seen: watching.Watched, moments: Sequence[float], stages: Sequence[str]) -> dict[str, Any]:
    return {
        "wall_seconds": dict(zip(stages, (round(moment, 3) for moment in moments), strict=True)),
        "cpu_seconds": dict(zip(stages, (round(seen.cpu_at(moment), 2) for moment in moments), strict=True)),
        "first_line": seen.first_line,
        "processes": [(each.name, round(each.began, 2), round(each.cpu, 2)) for each in seen.table()],
    }


def _train(python: str, workers: int) -> Any:
    def run(folder: Path, name: str, cold: bool) -> dict[str, Any]:
        words = ["train", "tiny.yaml", "run.storage=runs", f"run.name={name}", f"scale.workers={workers}"]
        seen = _watch([python, "-m", "raycls", *words], folder, name, cold)
        run = folder / "runs" / name
        lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        trained = [record["time"] for record in lines if record["kind"] == "train"]
        moments = (
            json.loads((run / "env.json").read_text())["time"],
            json.loads((run / "attempts.jsonl").read_text().splitlines()[0])["time"],
            trained[0],
            trained[-1],
            seen.began + seen.wall,
        )
        return _facts(seen, [moment - seen.began for moment in moments], STAGES)

    return run


def _torchrun(folder: Path, name: str, cold: bool) -> dict[str, Any]:
    log = folder / f"{name}.jsonl"
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    words = [*start, "--rdzv-endpoint", "127.0.0.1:0", str(_PEER), "images", str(log)]
    seen = _watch(words, folder, name, cold)
    times = [json.loads(line)["time"] - seen.began for line in log.read_text().splitlines()]
    return _facts(seen, (times[0], times[-1], seen.wall), STAGES[2:])


def _floor(script: str) -> Any:
    def run(folder: Path, name: str, cold: bool) -> dict[str, Any]:
        seen = _watch([sys.executable, "-c", script], folder, name, cold)
        return _facts(seen, [seen.wall], STAGES[-1:])

    return run


def _demo(python: str) -> Any:
    def run(folder: Path, name: str, cold: bool) -> dict[str, Any]:
        place = folder / name
        place.mkdir()
        seen = _watch([python, "-m", "raycls", "demo"], place, name, cold)
        return _facts(seen, [seen.wall], STAGES[-1:])

    return run


def _commands(folder: Path, python: str) -> dict[str, dict[str, float | None]]:
    """The commands that are over at once: seconds to the first line and to the end, and CPU-seconds."""
    picture = next((folder / "images" / "val").rglob("*.jpg"))
    run = next((folder / "runs").iterdir(), None)
    words = {"--help": ["--help"], "config": ["config", "tiny.yaml"]}
    if run is not None:
        words |= {"predict of one picture": ["predict", str(run), str(picture)], "eval": ["eval", str(run)]}
    found: dict[str, dict[str, float | None]] = {}
    for name, each in words.items():
        seen = _watch([python, "-m", "raycls", *each], folder, f"command-{name.split()[0].strip('-')}", False)
        found[name] = {"first_line": seen.first_line, "wall_seconds": seen.wall, "cpu_seconds": seen.cpu}
    return found


def _ratios(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """To the first step, or to the end where there is none: ours by the other's, within turns."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    pairs = [(name, f"before, {name}") for name in runs] + [("workers 2", "torchrun")]
    for ours, other in pairs:
        if ours in runs and other in runs:
            stage = "first step" if "first step" in runs[other][0]["wall_seconds"] else "ended"
            found[f"{ours} by {other}"] = {
                kind: measure.ratios(
                    [(a[kind][stage], b[kind][stage]) for a, b in zip(runs[ours], runs[other], strict=True)]
                )
                for kind in ("wall_seconds", "cpu_seconds")
            }
    return found


def _tell(result: dict[str, Any]) -> None:
    for name, runs in result["runs"].items():
        stages = runs[0]["wall_seconds"]
        parts = [
            f"{stage} {statistics.median(run['wall_seconds'][stage] for run in runs):.1f} s "
            f"({statistics.median(run['cpu_seconds'][stage] for run in runs):.1f})"
            for stage in stages
        ]
        measure.say(f"{name}: {', '.join(parts)}; wall seconds (CPU-seconds), medians of n={len(runs)}")
    for name, kinds in result["ratios"].items():
        for kind, spread in kinds.items():
            measure.say(f"{name}, {kind.replace('_', ' ')}: {measure.spread(spread)}")
    for name in (f"{before}workers 2" for before in ("", "before, ")):
        for process, began, cpu in result["runs"].get(name, [{"processes": []}])[-1]["processes"]:
            measure.say(f"{name}: {process:30} from {began:5.1f} s, {cpu:5.2f} CPU-seconds")
    for name, facts in result.get("commands", {}).items():
        measure.say(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in facts.items() if value is not None))


if __name__ == "__main__":
    main()
