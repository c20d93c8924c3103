"""Memory and reads of a segmentation trained on patches of large volumes.

Writes volumes of noise with balls as masks (int16 and uint8 NIfTI, uncompressed), trains a small U-Net on patches with
`raycls train`, and evaluates it by sliding windows: by one process (0 workers) and by workers on Ray, with samples made
inline and by processes beside. For each it says how often a volume was read per epoch, by a source that notes every
read, and the largest peak of resident memory of any process (VmHWM of Linux, asked for ten times a second), which is
to stay below 2 GB.

    python tests/benchmarks/volumes.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import nibabel
import numpy as np
import psutil

LIMIT = 2 * 10**9
_CONFIG = """
run: {{name: run, storage: {storage}}}
data:
  source: {{name: "counted:masks", path: {data}, args: {{classes: [background, ball]}}}}
  batch_size: 2
  window: [soft_tissue]
  patch: {{size: [{patch}, {patch}, {patch}], per_volume: 4}}
augment: {{train: [flip, noise], eval: []}}
task: {{name: volume_segmentation}}
model: {{name: unet, in_channels: 1, args: {{dimensions: 3, width: 4, depth: 2, norm: instance}}}}
train: {{duration: {epochs}ep, micro_batches: 2, amp: off}}
evaluate: {{every: {epochs}ep, metric: dice, sliding_window: {{overlap: 0.25}}}}
"""
_SOURCE = '''
"""The source `masks`, which notes each read of a volume: a line with its file, written at once."""
from dataclasses import dataclass, replace
from typing import Any

from raycls.data.sources.masks import masks as plain


@dataclass(frozen=True)
class Noted:
    reader: Any

    def read(self, index):
        with open({file!r}, "ab", buffering=0) as file:
            file.write(f"{{self.reader.locate(index)}}\\n".encode())
        return self.reader.read(index)

    def spacing(self, index):
        return self.reader.spacing(index)

    def locate(self, index):
        return self.reader.locate(index)

    def take(self, rows):
        return Noted(self.reader.take(rows))


def masks(path, classes):
    samples = plain(path, classes=classes)
    return replace(samples, reader=Noted(samples.reader))
'''


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--volumes", type=int, default=40, help="of which 2 are evaluated")
    parser.add_argument("--side", type=int, default=256, help="voxels along each axis")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--executors", nargs="+", default=["inline", "processes"])
    options = parser.parse_args(given)
    sizes = (4, 24, 8) if options.quick else (options.volumes, options.side, 64)
    result = measure.begin("volumes")
    result |= {"volumes": sizes[0], "side": sizes[1], "patch": sizes[2], "limit_bytes": LIMIT, "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        _write(Path(folder) / "data", *sizes[:2])
        measure.say(f"{sizes[0]} volumes of {sizes[1]}^3 written in {time.monotonic() - began:.0f} s")
        for workers in options.workers[: 1 if options.quick else None]:
            for executor in options.executors:
                case = _trained(Path(folder), workers, executor, sizes[2], sizes[0] - 2)
                result["cases"].append(case)
                measure.say(
                    f"{workers} workers, {executor}: peak {case['peak_bytes'] / 1e9:.2f} GB ({case['peak_of']}), "
                    f"{case['reads_per_volume_and_epoch']:g} reads per volume and epoch (and {case['other_reads']} at "
                    f"the start), {case['seconds']:.0f} s"
                )
    return measure.finish(result, options.json)


def _write(root: Path, volumes: int, side: int) -> None:
    rng, grid = np.random.default_rng(0), np.arange(side, dtype=np.float32)
    for number in range(volumes):
        centre, radius = rng.uniform(0.3, 0.7, 3) * side, rng.uniform(0.05, 0.2) * side
        away = sum(
            (grid - at).reshape([-1 if axis == own else 1 for axis in range(3)]) ** 2 for own, at in enumerate(centre)
        )
        mask = away < radius**2
        noise = rng.integers(-40, 40, (side, side, side), dtype=np.int16)
        for name, voxels in (("images", noise + np.int16(100) * mask), ("masks", mask.astype(np.uint8))):
            file = root / ("val" if number < 2 else "train") / name / f"{number:03}.nii"
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)


def _trained(folder: Path, workers: int, executor: str, patch: int, trained: int) -> dict[str, Any]:
    epochs, home = 2, folder / f"w{workers}-{executor}"
    home.mkdir()
    (home / "counted.py").write_text(_SOURCE.format(file=str(home / "reads")))
    text = _CONFIG.format(storage=home, data=folder / "data", patch=patch, epochs=epochs)
    (home / "run.yaml").write_text(text)
    words = [
        sys.executable,
        "-m",
        "raycls",
        "train",
        "run.yaml",
        f"scale.workers={workers}",
        f"data.executor={executor}",
    ]
    began = time.monotonic()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=home, stdout=log, stderr=subprocess.STDOUT)
        peaks = _peaks(process)
    if process.returncode:
        raise SystemExit((home / "log").read_text()[-3000:])
    reads = Counter((home / "reads").read_text().split())
    of_training = [count for file, count in reads.items() if "/train/" in file]
    usual = int(np.median(of_training))
    name, peak = max(peaks.items(), key=lambda item: item[1])
    return {
        "workers": workers,
        "executor": executor,
        "peak_bytes": peak,
        "peak_of": name,
        "reads_per_volume_and_epoch": usual / epochs,
        "other_reads": sum(of_training) - usual * trained,
        "seconds": round(time.monotonic() - began, 1),
    }


def _peaks(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """The largest resident size in bytes of each kind of process below `process`, until it ends."""
    peaks: dict[str, int] = {}
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.Error:
            break
        for one in family:
            try:
                status = Path(f"/proc/{one.pid}/status").read_text()
                name = measure.name_of(one)
            except (OSError, psutil.Error):
                continue
            found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            if found:
                peaks[name] = max(peaks.get(name, 0), int(found[0]) * 1024)
        time.sleep(0.1)
    process.wait()
    return peaks


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
