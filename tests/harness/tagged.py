"""Images with any number of labels, and a run that was trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["TAGS", "write_tagged"]

TAGS = ("red", "green", "blue")
_CONFIG = """
data: {source: {name: manifest, path: m.jsonl}, batch_size: 8, image_size: 8}
augment: {train: [horizontal_flip], eval: []}
task: {name: multilabel}
model: {name: tiny_cnn, args: {width: 8}}
optim: {lr: 0.05}
train: {duration: 3ep, micro_batches: 2, amp: off}
evaluate: {metric: map}
scale: {workers: 0}
"""


def write_tagged(folder: Path, count: int = 60) -> None:
    """`i/*.png` with a square whose colours are its labels, the manifest `m.jsonl`, where `site` is a or b, and
    `c.yaml`."""
    random = np.random.RandomState(0)
    lines: list[str] = []
    (folder / "i").mkdir()
    for number in range(count):
        there = random.rand(3) < 0.4
        pixels = random.randint(0, 60, (8, 8, 3))
        pixels[2:6, 2:6] += there * 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"i/{number}.png")
        label = [name for name, one in zip(TAGS, there, strict=True) if one]
        lines.append(json.dumps({"path": f"i/{number}.png", "label": label, "site": "ab"[number % 2]}))
    (folder / "m.jsonl").write_text("\n".join(lines))
    (folder / "c.yaml").write_text(_CONFIG)
