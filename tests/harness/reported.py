"""Runs to report on: one with class names that are code, and one of many classes that nobody trained."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from raycls.config.load import load_text
from raycls.data.samples import Keys
from raycls.data.source import Split
from raycls.launch import trainer
from raycls.run.folder import RunFolder
from raycls.screen.run import Display
from raycls.session.scoring.measured import measure
from raycls.session.scoring.options import Scoring
from raycls.session.trained.predictions import file_of, write_predictions
from raycls.tasks.classification import summarise
from raycls.tasks.scores.probabilities import Probabilities

__all__ = ["HOSTILE", "make_hostile", "make_many"]

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://host/?"&A1,"click")',
    "x" * 290 + " 300 long.",
    "</script><script>alert(2)</script>",
    "\" onmouseover=alert(3) x='{{ 7 * 7 }}",
)
"""Names of classes: a tag with code, a formula, 300 letters, the end of a script, the end of an attribute."""

_CONFIG = """
run: {name: hostile}
data:
  source: {name: manifest, path: labels.csv}
  image_size: 16
  batch_size: 16
  split: {train: 0.5, val: 0.25, test: 0.25}
augment: {train: [], eval: []}
model: {name: tiny_cnn, args: {width: 8}}
optim: {name: adamw, lr: 3e-3}
train: {duration: 2ep, amp: "off"}
scale: {workers: 0, threads: 1}
"""


def make_hostile(home: Path) -> Path:
    """A working directory with images and the finished run `runs/hostile` of five classes; returns the run's folder."""
    draw = np.random.default_rng(0)
    with (home / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for number, name in enumerate(HOSTILE):
            for index in range(24):
                pixels = draw.integers(0, 180, (16, 16, 3), dtype=np.uint8)
                pixels[..., number % 3] += 25 * number // 3
                path = f"{number}-{index:02}<b>.png"
                Image.fromarray(pixels).save(home / path)
                writer.writerow([path, name])
    (home / "hostile.yaml").write_text(_CONFIG)
    before = os.getcwd()
    os.chdir(home)
    try:
        trainer.train(load_text(_CONFIG, "hostile.yaml").run, display=Display(io.StringIO()))
    finally:
        os.chdir(before)
    return home / "runs" / "hostile"


class _Nowhere:
    """A reader of images that are gone."""

    def read(self, index: int) -> bytes:
        raise FileNotFoundError(index)


def make_many(folder: Path, size: int, count: int, *, seed: int = 0, name: str = "many", skill: float = 4.0) -> Path:
    """The folder of a run with `count` test images of `size` classes, evaluated as `raycls eval` does it. Its logits
    are drawn: the larger `skill`, the more of them are right."""
    draw = np.random.default_rng(seed)
    classes = tuple(f"n{index:08} a class whose name is rather long" for index in range(size))
    labels = np.random.default_rng(99).integers(0, size, count)
    logits = draw.normal(size=(count, size)).astype(np.float32)
    logits[np.arange(count), labels] += draw.normal(skill, 1.5, count).astype(np.float32)
    run = RunFolder(folder)
    run.store.write_bytes(RunFolder.CONFIG, f"run: {{name: {name}}}\ndata: {{source: {{path: gone}}}}\n".encode())
    weights = {"name": "best", "step": 25}
    run.write_json(RunFolder.MODEL_INFO, {"classes": classes, "weights": weights, "sha256": "00"})
    run.write_json(RunFolder.PLAN, {"steps_per_epoch": 10, "total_steps": 900})
    lines = [
        {"attempt": 1, "time": 1.0, "kind": kind, "split": "val", "step": 10 * epoch, "epoch": epoch, "loss": 9 / epoch}
        for epoch in range(1, 91)
        for kind in ("train", "evaluate")
    ]
    run.store.write_bytes(RunFolder.HISTORY, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    run.store.append_line(RunFolder.ATTEMPTS, '{"attempt":1,"step":0,"workers":2,"threads":1,"time":0.5}')
    probabilities = Probabilities(logits)
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (labels, probabilities.predicted), 1)
    loss = float(-probabilities.log_of(labels).sum())
    summary = summarise(confusion, loss, int(_top5(logits, labels)), classes)
    summary |= {"split": "test", "weights": weights, "provenance": {"sha256": "00"}}
    keys = Keys([f"{classes[label]}/{index:06}.jpg" for index, label in enumerate(labels.tolist())])
    split = Split("test", classes, labels, keys, _Nowhere(), ("jpeg",), 10**6)
    scoring = Scoring(file=file_of("test", "best"))
    run.write_json(scoring.summary_file, {**summary, **measure(probabilities, labels, summary)})
    write_predictions(run.store, scoring.file, split, probabilities, facts={}, about={}, logits_too=True)
    return folder


def _top5(logits: np.ndarray, labels: np.ndarray) -> int:
    best = np.argpartition(-logits, min(5, logits.shape[1] - 1), axis=1)[:, :5]
    return int((best == labels[:, None]).any(axis=1).sum())
