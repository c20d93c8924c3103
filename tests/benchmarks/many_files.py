"""Seconds and memory of a training over many files: 10,000, 100,000 and 1,000,000, listed in a manifest.

The manifest lists as many paths: 1,000 links to 20 small images, in one folder that as many links name as it takes. A
fresh process for each size looks at all of them, starts a run and trains some steps of it, with a small network, in the
process's own mode. Measured are the seconds from the config to the first step (with imports apart), CPU-seconds
beside them; and resident memory when the last step is done, and the most that there ever was, both with the imports,
whose share is told.

    python tests/benchmarks/many_files.py
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image

IN_A_FOLDER, IMAGES, CLASSES = 1000, 20, 100
STEPS = 20
STARTED = str(Path(__file__).with_name("many_files_start.py"))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(argv)
    if options.quick:
        options.files = [200, 400]
    result: dict[str, Any] = {**measure.begin("many_files"), "files": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_images(folder, max(options.files))
        for turn in range(options.rounds):
            for count in options.files[:: 1 if turn % 2 == 0 else -1]:
                found = _start(folder, count)
                result["files"].setdefault(count, []).append(found)
                measure.say(_line(count, found))
    sizes = sorted(result["files"])
    for before, after in itertools.pairwise(sizes):
        pairs = zip(result["files"][after], result["files"][before], strict=True)
        ratio = measure.ratios([(one["resident_mib"], other["resident_mib"]) for one, other in pairs])
        result.setdefault("resident_against_fewer", {})[after] = ratio
        measure.say(f"resident memory, {after:,} files against {before:,}: {measure.spread(ratio)}")
    return measure.finish(result, options.json)


def _line(count: int, found: dict[str, float]) -> str:
    each, first = 1e6 * found["listed_cpu_s"] / count, found["first_step_s"]
    return (
        f"{count:,} files: first step after {first:.1f} s ({found['first_step_cpu_s']:.1f} CPU-seconds); "
        f"data opened and recorded in {found['listed_cpu_s']:.2f} CPU-seconds, {each:.1f} microseconds per file; "
        f"resident {found['resident_mib']:.0f} MiB at the end, {found['most_mib']:.0f} at most, "
        f"{found['imports_mib']:.0f} of them imports"
    )


def _write_images(folder: Path, most: int) -> None:
    files = folder / "files"
    files.mkdir()
    generator = np.random.default_rng(0)
    for index in range(IN_A_FOLDER):
        path = files / f"{index:04}.png"
        if index < IMAGES:
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        else:
            os.link(files / f"{index % IMAGES:04}.png", path)
    for index in range(-(-most // IN_A_FOLDER)):
        (folder / f"d{index:04}").symlink_to("files")


def _start(folder: Path, count: int) -> dict[str, float]:
    rows = (f"d{row // IN_A_FOLDER:04}/{row % IN_A_FOLDER:04}.png,class{row % CLASSES:03}\n" for row in range(count))
    with (folder / f"{count}.csv").open("w") as file:
        file.write("path,label\n")
        file.writelines(rows)
    config = folder / f"{count}.yaml"
    config.write_text(
        f"run: {{name: n{count}, storage: {folder}/runs}}\n"
        f"data: {{source: {{name: manifest, path: {folder}/{count}.csv}}, batch_size: 32, image_size: 32}}\n"
        "model: {name: tiny_cnn}\n"
        f"train: {{duration: {STEPS}st}}\nevaluate: {{every: off}}\ntrack: {{log_every: 1st}}\nscale: {{workers: 0}}\n"
    )
    done = subprocess.run([sys.executable, STARTED, str(config)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
