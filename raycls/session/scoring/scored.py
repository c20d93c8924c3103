"""The first rank's part of an evaluation once all rows are there: the metrics of the rows, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from raycls.data.source import Split
from raycls.progress import progress
from raycls.run.folder import RunFolder
from raycls.session.job import Job
from raycls.session.scoring.measured import measure
from raycls.session.scoring.options import Scoring
from raycls.session.scoring.views import VIEWS
from raycls.session.trained.predictions import file_of, write_predictions
from raycls.session.trained.temperature import temperature_of
from raycls.tasks.scores.probabilities import Probabilities

__all__ = ["score"]


def score(job: Job, found: Mapping[str, tuple[dict[str, Any], dict[str, np.ndarray]]]) -> dict[str, Any]:
    """What the summary says beside the counts; `found` has the summary and the rows of each evaluated split.

    Nothing for a task that gives no logits of classes, whose scoring is at its defaults. ConfigError where it is not;
    CheckpointError where a file cannot be written.
    """
    scoring, split = job.scoring or Scoring(), job.dataset.splits[job.split]
    summary, rows = found[job.split]
    logits = rows.get("logits")
    if logits is None or logits.ndim != 2 or logits.shape[1] != len(split.classes) or "support" not in summary:
        return {}
    progress("measuring")
    folder, weights = RunFolder(job.folder), job.weights
    temperature = 1.0 if weights is None else temperature_of(folder, weights)
    probabilities = Probabilities(logits, temperature)
    more = measure(probabilities, split.labels, summary)
    if scoring.tta != "off":
        more["tta"] = {"name": scoring.tta, "views": [view.name for view in VIEWS[scoring.tta]]}
    if scoring.predictions != "off":
        more["predictions"] = _written(folder, scoring, split, probabilities)
    return more


def _written(folder: RunFolder, scoring: Scoring, split: Split, probabilities: Probabilities) -> str:
    provenance = dict(scoring.provenance)
    name = file_of(split.name, str(provenance.get("weights", "")), data=scoring.data, tta=scoring.tta)
    facts = {
        **provenance,
        "split": split.name,
        "data": scoring.data,
        "count": len(split),
        "tta": scoring.tta,
        "temperature": probabilities.temperature,
    }
    progress("writing predictions")
    logits = scoring.predictions == "full"
    write_predictions(folder.store, name, split, probabilities, facts=facts, about={}, logits=logits)
    return name
