"""What `raycls eval --crf` is worth where noise breaks a small U-Net: Dice with the CRF and without, three seeds.

Each seed has phantoms of its own (a body, a spine, a lesion of 400 HU) under normal noise, a training, a CRF that is
fitted on the validation split, and a test split that neither has seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, begin, finish, interval, say

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.masks import lesion
from harness.phantom import phantom, write_nifti

_CONFIG = """
data:
  source: {{name: masks, path: {data}, args: {{classes: [background, lesion]}}}}
  batch_size: 4
  window: [bone]
augment: {{train: [flip, noise], eval: []}}
task: {{name: volume_segmentation}}
model: {{name: unet, in_channels: 1, args: {{dimensions: 3, width: 8, depth: 2}}}}
optim: {{lr: 0.02}}
train: {{duration: {epochs}ep, micro_batches: 2, amp: off}}
evaluate: {{keep: last}}
run: {{storage: {runs}, name: seed-{seed}, seed: {seed}}}
scale: {{workers: 0}}
"""


def write_phantoms(root: Path, counts: dict[str, int], noise: dict[str, float], seed: int) -> Path:
    """`counts` phantoms of each split with normal noise of so many HU on every voxel, and their lesions as masks."""
    for place, (split, count) in enumerate(counts.items()):
        for number in range(count):
            which = 10_000 * seed + 1000 * place + number
            clean = phantom(which, 0)
            noisy = clean + np.random.default_rng(which).normal(0, noise[split], clean.shape)
            write_nifti(root / split / "images" / f"{number}.nii.gz", np.round(noisy).astype(np.int16))
            write_nifti(root / split / "masks" / f"{number}.nii.gz", lesion(clean))
    return root


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = arguments((__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=250.0, help="standard deviation in HU")
    parser.add_argument("--clean", action="store_true", help="train without noise: it comes with validation and test")
    options = parser.parse_args(argv)
    seeds, epochs = (2, 1) if options.quick else (options.seeds, 40)
    counts = {"train": 2, "val": 1, "test": 1} if options.quick else {"train": 8, "val": 4, "test": 12}
    found = {
        **begin("crf"),
        "noise": options.noise,
        "clean": options.clean,
        "counts": counts,
        "epochs": epochs,
        "cases": [],
    }
    for seed in range(seeds):
        noise = dict.fromkeys(counts, options.noise) | ({"train": 0.0} if options.clean else {})
        case = _case(seed, counts, noise, epochs)
        found["cases"].append(case)
        say(f"seed {seed}: Dice {case['without']:.4f} without, {case['with']:.4f} with it; {case['crf']}")
    gains = [case["with"] - case["without"] for case in found["cases"]]
    low, high = interval(gains)
    found["gain"] = {"mean": round(sum(gains) / seeds, 4), "low": low, "high": high, "n": seeds}
    say(f"gain {found['gain']['mean']:+.4f}, 95 % {low:+.4f} to {high:+.4f} over {seeds} seeds")
    return finish(found, options.json)


def _case(seed: int, counts: dict[str, int], noise: dict[str, float], epochs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_phantoms(root / "data", counts, noise, seed)
        (root / "c.yaml").write_text(_CONFIG.format(data=data, runs=root, seed=seed, epochs=epochs))
        _raycls(root, "train", "c.yaml")
        summary = json.loads(_raycls(root, "eval", f"seed-{seed}", "--crf", "--split", "test", "--json"))
    crf = summary["crf"]
    return {"seed": seed, "without": crf["without"], "with": summary["dice"], "crf": crf["crf"], "val": crf["dice"]}


def _raycls(root: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "raycls", *words], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
