"""Steps that wait at the boundary of two epochs, and what checkpoints cost.

`epochs`: a run of two epochs with an evaluation after each, once for each executor. Of every step of the second epoch
its wait for data, against the median step there: what is decoded ahead runs on through the evaluation. With `inline`
a step's wait is the decoding of its own samples. `ray` is one worker on a Ray of its own.

`checkpoints`: runs with a checkpoint after every 100 steps and runs with none before their end, by turns in one
process; CPU-seconds of the steps of each pair. As that differs by more than one per cent from run to run, what the
thread that trains and the thread that writes spend on checkpoints is clocked too, against the CPU-seconds of the same
steps.

    python tests/benchmarks/boundary.py
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures

from raycls.config.load import load_text
from raycls.launch.trainer import train
from raycls.run import checkpoint
from raycls.screen.run import Display
from raycls.session.recording import recorder

PARTS = ("epochs", "checkpoints")
EXECUTORS = ("inline", "processes", "ray")
EVERY = 100


class Heard(Display):
    """Keeps the records of training, and the CPU-seconds of this process when each came."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.records: list[dict[str, Any]] = []
        self.cpu: list[float] = []

    def trained(self, record: Any, *, evaluation_follows: bool = False) -> None:
        self.records.append(record)
        self.cpu.append(time.process_time())


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=EXECUTORS)
    parser.add_argument("--steps", type=int, default=40, help="of an epoch")
    parser.add_argument("--checkpoint-steps", type=int, default=201)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args(argv)
    if options.quick:
        options.steps, options.checkpoint_steps, options.pairs = 3, 101, 1
    result = measure.begin("boundary")
    parts = options.parts or PARTS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if "epochs" in parts:
            pictures.write_folder(folder / "images", {"train": 64 * options.steps, "val": 128})
            result["epochs"] = {name: _epochs(folder, name, options) for name in options.executors}
        if "checkpoints" in parts:
            result["checkpoints"] = _checkpoints(folder, options)
    return measure.finish(result, options.json)


def _epochs(folder: Path, executor: str, options: Any) -> dict[str, Any]:
    config = f"""\
run: {{name: {executor}, storage: {folder}/runs}}
data: {{source: {{name: folder, path: {folder}/images}}, batch_size: 64, image_size: 32, executor: {executor}}}
augment: {{train: [{{random_crop: {{size: 32, padding: 4}}}}, horizontal_flip], eval: []}}
model: {{name: tiny_cnn, args: {{width: {8 if options.quick else 64}}}}}
train: {{duration: 2ep}}
scale: {{workers: {int(executor == "ray")}}}
track: {{log_every: 1st}}
"""
    display = Heard()
    train(load_text(config).run, display=display)
    steps = [(64 / float(each["images_per_second"]), float(each["data_wait"])) for each in display.records]
    second = steps[options.steps :]
    median = statistics.median(seconds for seconds, _ in second)
    waits = [seconds * share for seconds, share in second]
    found = {
        "median_step_s": median,
        "first_wait_s": waits[0],
        "longest_wait_s": max(waits),
        "longest_wait_of_median_step": max(waits) / median,
        "steps": len(second),
    }
    measure.say(
        f"{executor}: in epoch 2 the longest wait for data is {found['longest_wait_of_median_step']:.2f} of the median "
        f"step ({1000 * median:.0f} ms), that of its first step {waits[0] / median:.2f}; n={len(second)} (target: 2)"
    )
    return found


def _checkpoints(folder: Path, options: Any) -> dict[str, Any]:
    generator, count = np.random.default_rng(0), 640
    np.savez(
        folder / "data.npz",
        images=generator.integers(0, 256, (count, 32, 32, 3), np.uint8),
        labels=np.arange(count) % 10,
    )
    spent: list[float] = []
    # in whichever thread: `save` is called by the one that trains, `commit` by the one that writes
    recorder.Recorder.save = _clocked(recorder.Recorder.save, spent)  # type: ignore[method-assign]
    checkpoint.commit = _clocked(checkpoint.commit, spent)
    pairs: list[tuple[float, float]] = []
    shares: list[float] = []
    for pair in range(options.pairs):
        seconds: dict[bool, float] = {}
        for saves in (True, False) if pair % 2 == 0 else (False, True):
            spent.clear()
            seconds[saves] = _steps(folder, f"{pair}-{saves}", saves, options)
            if saves:
                every = options.checkpoint_steps // EVERY
                # the last one, after the end, is in both runs
                shares.append(sum(spent) / (every + 1) / (seconds[True] / (options.checkpoint_steps - 1) * EVERY))
        pairs.append((seconds[True], seconds[False]))
    found = measure.ratios(pairs)
    clocked = statistics.median(shares)
    measure.say(
        f"checkpoints after every {EVERY} steps: CPU-seconds against none {measure.spread(found)}; clocked "
        f"{clocked:.2%} of the steps' ({min(shares):.2%} to {max(shares):.2%}, n={len(shares)}; target: 1 %)"
    )
    return {"cpu_against_none": found, "clocked_share": shares}


def _steps(folder: Path, name: str, saves: bool, options: Any) -> float:
    """CPU-seconds of this process from the first step of a run to its last."""
    steps = options.checkpoint_steps
    config = f"""\
run: {{name: "{name}", storage: {folder}/runs}}
data: {{source: {{name: arrays, path: {folder}/data.npz}}, batch_size: 64, image_size: 32}}
augment: {{train: [horizontal_flip], eval: []}}
model: {{name: tiny_cnn, args: {{width: {8 if options.quick else 64}}}}}
train: {{duration: {steps}st}}
evaluate: {{every: off}}
checkpoint: {{every: {f"{EVERY}st" if saves else "100%"}}}
scale: {{workers: 0}}
track: {{log_every: 1st}}
"""
    display = Heard()
    train(load_text(config).run, display=display)
    return display.cpu[-1] - display.cpu[0]


def _clocked(function: Any, into: list[float]) -> Any:
    def clocked(*args: Any, **more: Any) -> Any:
        before = time.thread_time()
        try:
            return function(*args, **more)
        finally:
            into.append(time.thread_time() - before)

    return clocked


if __name__ == "__main__":
    main()
