"""The working directory that most tests on a real Ray share: small images, a config, a run to compare with."""

from __future__ import annotations

from pathlib import Path

from harness.jobs import write_arrays
from harness.runs import Site

__all__ = ["PACING", "make_site"]

CONFIG = """
data:
  source: {name: arrays, path: images.npz}
  batch_size: 64
  image_size: 12
augment:
  train:
    - random_crop: {size: 12, padding: 2}
    - horizontal_flip
    - color_jitter: {brightness: 0.2}
    - pacing:paced: {flag: FLAG}
  eval: []
model: {name: tiny_cnn, args: {width: 8, dropout: 0.1}}
loss: {args: {label_smoothing: 0.1}}
optim: {lr: 0.05, clip_norm: 1.0, ema: 0.9}
schedule: {name: cosine, warmup: 5st}
train: {duration: 5ep, micro_batches: 4, reduction: exact, amp: "off", ledger: pixels}
evaluate: {keep: last}
checkpoint: {every: 7st}
track: {log_every: 1st}
"""

PACING = '''
"""An augmentation that changes nothing and takes its time while the file `flag` is there."""

import os
import time


def paced(flag):
    def wait(image):
        if os.path.exists(flag):
            time.sleep(0.004)
        return image

    return wait
'''


def make_site(folder: Path) -> Site:
    """A working directory with a config, its 1,003 training images, and a finished run without Ray."""
    write_arrays(folder / "images.npz", train=1003, val=67)
    (folder / "pacing.py").write_text(PACING)
    (folder / "small.yaml").write_text(CONFIG.replace("FLAG", str(folder / "slow")))
    made = Site(folder)
    with made.raycls("train", "small.yaml", "scale.workers=0", "run.name=reference") as command:
        assert command.wait(120) == 0, command.said()
    return made
