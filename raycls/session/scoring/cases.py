"""What an evaluation of masks says of each sample: a table in the run folder, and the means of distances.

`predictions/WHAT-WEIGHTS.csv` has a row per sample and class, in the order of the samples: `key`, `class`, `dice`,
`iou`, `hausdorff95`, `surface_distance` (in mm of volumes, in pixels of images), `true` and `predicted` (pixels or
voxels). `nan` stands where a class is in neither mask, `inf` where it is in one of both. Equal evaluations give equal
bytes, on any number of workers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from raycls.errors import CheckpointError, ConfigError
from raycls.run.folder import RunFolder
from raycls.session.job import Job
from raycls.session.scoring.options import Scoring, unwritten
from raycls.tasks.segmentation.cases import CASE, distances, macro_dice

__all__ = ["refuse_masks", "score_cases"]


def refuse_masks(scoring: Scoring) -> None:
    """ConfigError for the options that masks have no use for."""
    asked = {"--tta": scoring.tta != "off", "--by": scoring.by, "--calibrate": scoring.calibrate}
    asked |= {"--calibrated": scoring.calibrated, "--threshold": scoring.threshold, "--positive": scoring.positive}
    if wrong := [name for name, given in asked.items() if given]:
        raise ConfigError(
            "this is for answers of one class per image",
            where=", ".join(wrong),
            found="a run whose answers are masks",
            fix=f"leave {', '.join(wrong)} out",
        )


def score_cases(job: Job, summary: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The distances of `rows` `cases` `[N, C, 6]`, and as `predictions` the name of the table, where one is wanted."""
    scoring, split, cases = job.scoring or Scoring(), job.dataset.splits[job.split], rows["cases"]
    background = job.config["task"]["args"].get("background", False)
    first = 0 if background else 1
    found = distances(cases, summary, split.classes, first)
    alone = rows.get("alone")
    if alone is not None:
        told = {name: value for name, value in scoring.joined if name not in ("format", "sha256", "samples")}
        found["crf"] = {**told, "without": macro_dice(alone, first)}
    if scoring.predictions == "off":
        return found
    name = scoring.file.removesuffix(".parquet") + ".csv"
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", "class", *CASE, *([] if alone is None else ["dice_without_crf"])])
    for row, sample in enumerate(cases):
        for label, numbers in zip(split.classes, sample.tolist(), strict=True):
            shown = [f"{value:.9g}" for value in numbers[:4]] + [f"{value:.0f}" for value in numbers[4:]]
            shown += [] if alone is None else [f"{alone[row, split.classes.index(label)]:.9g}"]
            table.writerow([split.key(row), label, *shown])
    try:
        RunFolder(job.folder).store.write_bytes(name, text.getvalue().encode("utf-8", "surrogateescape"))
    except CheckpointError as error:
        return found | unwritten(error)
    return {**found, "predictions": name}
