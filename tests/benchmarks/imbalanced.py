"""CIFAR-10 with one image of the last class for 50 of the first: macro F1 on the balanced test split by `loss.balance`.

    tar -xf cifar10-jpeg.tar.xz -C FOLDER
    python tests/benchmarks/imbalanced.py FOLDER

The training images of class c (0 to 9, in the order of the names) are the first `5000 * 50 ** (-c / 9)` by name, the
profile of Cui et al. 2019, section 5.1; the test split keeps all 10,000. The list is written as a manifest, with which
`configs/imbalanced.yaml` runs. Each variant and seed is one `raycls train` of its own, one after another.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

CONFIG = Path(__file__).parents[2] / "configs" / "imbalanced.yaml"
BALANCES = ("none", "weights", "effective_number", "sampler", "logit_adjust")
RATIO = 50


def write_manifest(folder: Path, path: Path, ratio: float = RATIO) -> list[int]:
    """List the images of `folder` (train/CLASS, test/CLASS) in `path`; how many training images each class has."""
    names = sorted(item.name for item in (folder / "train").iterdir())
    counts: list[int] = []
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for index, name in enumerate(names):
            images = sorted((folder / "train" / name).iterdir())
            counts.append(max(1, int(len(images) * ratio ** (-index / max(1, len(names) - 1)))))
            rows.writerows([str(image.resolve()), name, "train"] for image in images[: counts[-1]])
            rows.writerows([str(image.resolve()), name, "test"] for image in sorted((folder / "test" / name).iterdir()))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="CIFAR-10 as images in train/CLASS and test/CLASS")
    parser.add_argument("--out", type=Path, default=Path("imbalanced"), help="folder for the manifest and the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--balance", nargs="*", default=list(BALANCES), choices=BALANCES)
    parser.add_argument("--quick", action="store_true", help="two steps each; measures nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = options.out / "imbalanced.csv"
    print("training images by class:", write_manifest(options.folder, manifest), flush=True)
    scores: dict[str, list[float]] = {balance: [] for balance in options.balance}
    for seed in range(options.seeds):
        for balance in options.balance:
            name = f"{balance}-{seed}"
            overrides = [f"data.source.path={manifest}", f"run.storage={options.out}", f"run.name={name}"]
            overrides += [f"run.seed={seed}", f"loss.balance={balance}", "scale.workers=0"]
            overrides += ["train.duration=2st", "schedule.warmup=0st"] if options.quick else []
            command = [sys.executable, "-m", "raycls", "train", str(CONFIG), *overrides]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
            lines = [json.loads(line) for line in (options.out / name / "history.jsonl").read_text().splitlines()]
            last = [line for line in lines if line["kind"] == "evaluate"][-1]
            scores[balance].append(last["f1_macro"])
            print(f"seed {seed} {balance:17} macro F1 {last['f1_macro']:.4f}  top-1 {last['top1']:.4f}", flush=True)
    for balance, values in scores.items():
        spread = f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        print(f"{balance:17} macro F1 {np.mean(values):.4f}{spread} (standard deviation, n = {len(values)})")


if __name__ == "__main__":
    main()
