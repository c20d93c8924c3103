"""What the parts of the search benchmark share: a Ray of their own, data and configs, commands, and their ledgers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Searched", "finished", "numbers", "own_ray", "plain_clock", "slots", "start_plain", "write_tiny"]

_PLAIN = Path(__file__).with_name("empty_trials.py")
_TINY = """\
data:
  source: {name: arrays, path: tiny.npz}
  batch_size: 8
  image_size: 8
  executor: inline
augment: {train: [], eval: []}
model: {name: tiny_cnn, args: {width: 4}}
train: {duration: 1ep, micro_batches: 1}
evaluate: {every: 1ep}
track: {log_every: 1st}
scale: {workers: 1}
search:
  space: {optim.lr: loguniform(1e-3, 0.1)}
"""


def slots() -> int:
    """Trials at a time: one for each core that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def own_ray() -> Iterator[Path]:
    """A Ray that every command in the block joins: its start is in no figure. Yields the folder of its files."""
    from raycls.cluster.connection import running_cluster

    before = os.environ.get("RAY_ADDRESS")
    os.environ.pop("RAY_ADDRESS", None)
    try:
        with running_cluster() as cluster:
            import ray

            os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
            yield Path(cluster.logs).parents[1]
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before


def write_tiny(folder: Path) -> str:
    """32 images of noise for training and as many to evaluate on, and the config of a search over one epoch of them."""
    random = np.random.default_rng(0)
    arrays: Any = {f"{split}_images": random.integers(0, 256, (32, 8, 8), np.uint8) for split in ("train", "val")}
    arrays |= {f"{split}_labels": np.arange(32) % 4 for split in ("train", "val")}
    np.savez(folder / "tiny.npz", **arrays)
    (folder / "tiny.yaml").write_text(_TINY)
    return "tiny.yaml"


def _start(
    folder: Path, words: Sequence[str], name: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start python with `words` in `folder`; what it says goes to `name.log` there."""
    variables = {**os.environ, **(environment or {})}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT
        )


def finished(process: subprocess.Popen[bytes], folder: Path, name: str) -> None:
    """Wait for it. SystemExit with its last words where it failed."""
    if process.wait():
        said = (folder / f"{name}.log").read_text(errors="replace").splitlines()[-30:]
        raise SystemExit(f"{name} ended with {process.returncode}:\n" + "\n".join(said))


def start_plain(folder: Path, name: str, trials: int, *, keep: bool) -> subprocess.Popen[bytes]:
    """Start plain Tune with an empty function; `keep`: one process for one trial after another."""
    words = [str(_PLAIN), "--trials", str(trials), "--slots", str(slots()), *(["--keep-processes"] if keep else [])]
    return _start(folder, words, name)


def plain_clock(folder: Path, name: str) -> dict[str, list[float]]:
    """When its trials `starts` and `ends` were, Unix seconds."""
    return json.loads((folder / f"{name}.log").read_text().splitlines()[-1])


@dataclass(frozen=True)
class Searched:
    """A search folder, read as anybody would read it."""

    folder: Path

    @classmethod
    def run(cls, folder: Path, config: str, name: str, *overrides: str) -> Searched:
        """`raycls search`, to its end."""
        searched = cls(folder / "runs" / name)
        finished(searched.start(config, *overrides), folder, name)
        return searched

    def start(
        self, config: str, *overrides: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        folder, name = self.folder.parents[1], self.folder.name
        words = ["-m", "raycls", "search", config, "run.storage=runs", f"run.name={name}", *overrides]
        return _start(folder, words, name, environment)

    def lines(self, kind: str = "") -> list[dict[str, Any]]:
        """Those of the ledger, in order; of one kind, or all."""
        text = (self.folder / "trials.jsonl").read_text()
        found = [json.loads(line) for line in text.splitlines()]
        return [line for line in found if not kind or line["kind"] == kind]

    def history(self, trial: str) -> list[dict[str, Any]]:
        text = (self.folder / "trials" / trial / "history.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


def numbers(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """All of them, with median, least and greatest."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "n": len(values),
        "all": [round(value, digits) for value in values],
    }
