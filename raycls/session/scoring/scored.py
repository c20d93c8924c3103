"""The first rank's part of an evaluation once all rows are there: the metrics of the rows, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from raycls.errors import ConfigError, DataError
from raycls.progress import progress
from raycls.run.folder import RunFolder
from raycls.session.job import Job
from raycls.session.scoring.cases import score_cases
from raycls.session.scoring.measured import group_by, measure
from raycls.session.scoring.options import FIT, FITTED_ON, Scoring
from raycls.session.scoring.several import score_several
from raycls.session.scoring.written import written
from raycls.session.trained import temperature as kept
from raycls.session.trained.predictions import write_predictions
from raycls.tasks.reading import Reading
from raycls.tasks.scores.calibration import calibration, fit_temperature
from raycls.tasks.scores.probabilities import Probabilities
from raycls.tasks.scores.threshold import at_threshold, fit_threshold, read_rule

__all__ = ["score"]

_Found = Mapping[str, tuple[dict[str, Any], dict[str, np.ndarray]]]


def score(job: Job, found: _Found, reading: Reading) -> dict[str, Any]:
    """What the summary says beside the counts; `found` has the summary and the rows of each evaluated split, `reading`
    is that of the task.

    Nothing for a task that gives no logits of classes; ConfigError where that was asked for more. DataError where
    nothing can be fitted, CheckpointError where a temperature cannot be written.
    """
    scoring, split = job.scoring or Scoring(), job.dataset.splits[job.split]
    if reading.several:
        return score_several(job, found, scoring)
    if "cases" in found[job.split][1]:
        return score_cases(job, *found[job.split])
    logits = _logits(job, found, job.split)
    if logits is None:
        return _without_logits(scoring)
    progress("measuring")
    folder = RunFolder(job.folder)
    fitted = _calibrated(job, found, folder) if scoring.calibrate else None
    weights = job.weights if scoring.applies_temperature else None
    temperature = 1.0 if weights is None else kept.temperature_of(folder, weights)
    probabilities = Probabilities(logits, temperature)
    more = measure(probabilities, split.labels, found[job.split][0])
    if fitted is not None:
        more["calibration"]["fit"] = fitted
    if "not_finite" not in more:
        if scoring.by:
            more["by"] = {name: group_by(probabilities, split.labels, split.about[name]) for name in scoring.by}
        if scoring.threshold:
            more["threshold"] = _threshold(job, found, scoring, probabilities)
    write = partial(write_predictions, folder.store, scoring.file, split, probabilities)
    return {**more, **written(scoring, split, write, temperature=probabilities.temperature)}


def _logits(job: Job, found: _Found, name: str) -> np.ndarray | None:
    summary, rows = found[name]
    logits, classes = rows.get("logits"), job.dataset.splits[name].classes
    whole = logits is not None and logits.ndim == 2 and logits.shape[1] == len(classes) and "support" in summary
    return logits if whole else None


def _without_logits(scoring: Scoring) -> dict[str, Any]:
    asked = {"--tta": scoring.tta != "off", "--by": bool(scoring.by), "--calibrate": scoring.calibrate}
    asked["--threshold"] = bool(scoring.threshold)
    if any(asked.values()):
        raise ConfigError(
            "the task of this run does not say how likely each class of an image is",
            where="task.name",
            found=", ".join(name for name, given in asked.items() if given),
            valid="a task whose method rows returns logits [B, C] of the classes",
            fix="leave these options out",
        )
    return {}


def _calibrated(job: Job, found: _Found, folder: RunFolder) -> dict[str, Any]:
    """Fit the temperature on the validation split and keep it; what it did there."""
    logits, labels = _logits(job, found, FIT), job.dataset.splits[FIT].labels
    temperature = None
    if logits is not None and np.isfinite(logits).all():
        temperature = fit_temperature(logits, labels)
    if logits is None or temperature is None:
        raise DataError(
            "no temperature can be fitted: none makes the validation split likeliest",
            where=f"split {FITTED_ON}, {len(labels):,} images",
            found="each of them is predicted right, or the answers say nothing of the classes",
            fix="leave out --calibrate; a larger validation split has images that are predicted wrong",
        )
    names = ("nll", "brier", "ece")
    before, after = (calibration(Probabilities(logits, value), labels) for value in (1.0, temperature))
    facts = {
        "split": FITTED_ON,
        "count": len(labels),
        "before": {name: before[name] for name in names},
        "after": {name: after[name] for name in names},
    }
    kept.write_temperature(folder, temperature, facts)
    return {"temperature": temperature, "file": kept.FILE, **facts}


def _threshold(job: Job, found: _Found, scoring: Scoring, probabilities: Probabilities) -> dict[str, Any]:
    split = job.dataset.splits[job.split]
    positive = split.classes.index(scoring.positive) if scoring.positive else 1
    rule = read_rule(scoring.threshold)
    value, fitted_on = rule[1], None
    if scoring.fits_threshold:
        logits, labels = _logits(job, found, FIT), job.dataset.splits[FIT].labels
        try:
            if logits is None or not np.isfinite(logits).all():
                raise ValueError("answers that are not finite")
            scores = Probabilities(logits, probabilities.temperature).column(positive)
            value = fit_threshold(rule, labels == positive, scores)
        except ValueError as error:
            raise DataError(
                "no threshold can be fitted", where=f"split {FITTED_ON}, {len(labels):,} images", found=str(error)
            ) from error
        fitted_on = {"split": FITTED_ON, "count": len(labels)}
    found_at = at_threshold(value, split.labels == positive, probabilities.column(positive))
    named = {"rule": scoring.threshold, "value": value, "positive": split.classes[positive], "fitted_on": fitted_on}
    return {**named, **found_at}
