"""What an evaluation of images with any number of classes says beside its counts, and the file of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.session.job import Job
from raycls.session.scoring.options import FIT, FITTED_ON, Scoring
from raycls.session.scoring.written import written
from raycls.session.trained.predictions import write_label_sets
from raycls.tasks.scores.multilabel import at_thresholds, histogram_of, sigmoid, summarise, unfitted

__all__ = ["RULES", "refuse", "score_several"]

_HALF = 0.5
_FITTED = "max-f1"
RULES = f"a probability such as 0.3 for all classes, or {_FITTED}, each class its own, found on the validation split"


def refuse(scoring: Scoring) -> None:
    """ConfigError for what has no meaning where each class is a question of its own."""
    asked = {"--calibrate": scoring.calibrate, "--calibrated": scoring.calibrated, "--positive": scoring.positive}
    if wrong := [name for name, given in asked.items() if given]:
        raise ConfigError(
            "this is for images of one class",
            where=", ".join(wrong),
            found="a run whose images have any number of classes",
            fix=f"leave {', '.join(wrong)} out",
        )
    if scoring.threshold and scoring.threshold != _FITTED and _number(scoring.threshold) is None:
        raise ConfigError("this is no threshold", where="--threshold", found=scoring.threshold, valid=RULES)


def score_several(
    job: Job, found: Mapping[str, tuple[dict[str, Any], dict[str, np.ndarray]]], scoring: Scoring
) -> dict[str, Any]:
    """As `scored.score`: `by`, `threshold`, `tta`, and `predictions`, the name of the file.

    `threshold` has `rule`, `values` by class, `fitted_on`, `unfitted` (the classes without an image there),
    `exact`, `f1_macro` (over the classes that an image has), `f1_micro`, and `per_class` with `precision`, `recall`
    and `f1`. Without one the file has the classes from 0.5.
    """
    split = job.dataset.splits[job.split]
    logits = found[job.split][1].get("logits")
    if logits is None or logits.ndim != 2 or split.sets is None:
        return {}
    wrong = int((~np.isfinite(logits).all(axis=1)).sum())
    if wrong:
        return {"not_finite": wrong}
    more: dict[str, Any] = {}
    there, values = split.sets[split.labels], np.full(len(split.classes), _HALF)
    if scoring.by:
        more["by"] = {name: _groups(logits, there, split.about[name], split.classes) for name in scoring.by}
    if scoring.threshold:
        more["threshold"] = chosen = _threshold(job, found, scoring.threshold, logits, there)
        values = np.array(list(chosen["values"].values()))
    write = partial(write_label_sets, RunFolder(job.folder).store, scoring.file, split, logits, values)
    return {**more, **written(scoring, split, write, thresholds=values.tolist())}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _threshold(
    job: Job, found: Mapping[str, tuple[dict[str, Any], Any]], rule: str, logits: np.ndarray, there: np.ndarray
) -> dict[str, Any]:
    classes, fitted_on, without = job.dataset.splits[job.split].classes, None, ()
    if rule == _FITTED:
        per_class = found[FIT][0]["per_class"]
        values = [float(per_class[name]["best_threshold"]) for name in classes]
        fitted_on = {"split": FITTED_ON, "count": found[FIT][0]["count"]}
        without = unfitted(per_class)
    else:
        values = [_number(rule) or 0.0] * len(classes)
    scores = at_thresholds(sigmoid(logits), there, np.array(values), classes)
    chosen = {"rule": rule, "values": dict(zip(classes, values, strict=True)), "fitted_on": fitted_on}
    return {**chosen, "unfitted": list(without), **scores}


def _groups(
    logits: np.ndarray, there: np.ndarray, values: Sequence[str], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By each value of a column, in the order of the values: `count`, `map`, `map_classes`, `f1_macro`, `exact`."""
    names, position = np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)
    found: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names.tolist()):
        rows = position == index
        exact = int(((logits[rows] >= 0) == there[rows]).all(axis=1).sum())
        whole = summarise(histogram_of(logits[rows], there[rows]), exact, 0.0, classes)
        found[name] = {key: whole[key] for key in ("count", "map", "map_classes", "f1_macro", "exact")}
    return found
