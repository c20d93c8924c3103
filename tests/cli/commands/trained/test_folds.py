"""`raycls folds`: what it prints can be typed, and its exit codes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from harness.command_line import Result


def test_the_printed_command_trains_what_is_missing(raycls_command: Callable[..., Result]) -> None:
    Path("cv.yaml").write_text(
        "data: {source: {name: digits}, fold: {index: 0, of: 2}, image_size: 8}\n"
        "model: {name: tiny_cnn}\ntrain: {duration: 3st}\nscale: {workers: 0}\n"
    )
    empty = raycls_command("folds", "cv.yaml")
    assert (empty.code, empty.out.splitlines()[-1]) == (
        4,
        "train fold 1: raycls train cv.yaml data.fold.index=1 run.name=cv-1",
    )
    for line in empty.out.splitlines()[-2:]:
        told = raycls_command(*line.partition(": raycls ")[2].split())
        assert told.code == 0, told.err
    whole = raycls_command("folds", "cv-1", "--json", "--out", "cv.html")
    assert whole.code == 0, whole.err
    facts = json.loads(whole.out)
    assert facts["complete"] and math.isfinite(facts["metrics"]["top1"]["high"])
    assert "Cross-validation of 2 folds" in Path("cv.html").read_text()
    assert raycls_command("folds", "cv-1", "optim.lr=1").code == 2
