"""Evaluations of a run, as `raycls eval` left them in its folder: summaries, and what was predicted of each sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raycls.report.runs import Told
from raycls.run.folder import RunFolder

__all__ = ["Evaluated", "Samples", "find_evaluated", "logits_of", "open_predictions", "read_samples", "value_of"]

_METADATA = b"raycls"
_CALIBRATED = {"nll": "NLL", "ece": "ECE"}
_COLUMNS = ("key", "path", "label", "predicted", "confidence", "top_classes", "top_probabilities")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of the weights that `model/` holds."""

    file: str
    """The name of the Parquet file in the run folder."""
    summary: Mapping[str, Any]
    """As `raycls eval --json` printed it."""
    calibrated: Mapping[str, Any] | None = None
    """The summary of the same images with a fitted temperature, where there is one."""

    @property
    def probabilities(self) -> str:
        """Which probabilities the numbers are of, in a sentence, and what a fitted temperature makes of them."""
        plain, fitted = (summary.get("calibration") or {} for summary in (self.summary, self.calibrated or {}))
        if not plain:
            return ""
        if not fitted:
            return "Probabilities are not calibrated."
        change = ", ".join(f"{title} {plain[name]:.4f} -> {fitted[name]:.4f}" for name, title in _CALIBRATED.items())
        by = f"a temperature of {fitted['temperature']:.4f} was fitted beside them (raycls eval --calibrate): {change}"
        return f"Probabilities are not calibrated; {by}."

    @property
    def step(self) -> int:
        return int((self.summary.get("weights") or {}).get("step") or 0)

    @property
    def split(self) -> str:
        return str(self.summary.get("split", "all"))


@dataclass(frozen=True)
class Samples:
    """What was predicted of each of N samples, in the order of the evaluation."""

    keys: list[str]
    paths: list[str]
    classes: list[str]
    label: np.ndarray
    """Positions in `classes`, `[N] int64`, as `predicted`."""
    predicted: np.ndarray
    confidence: np.ndarray
    """Probability of the predicted class, `[N]`."""
    truth: np.ndarray
    """Probability of the class that is true, `[N]`. Where the file has no logits and the class is not among the first
    ones, 0."""

    @property
    def right(self) -> np.ndarray:
        return self.label == self.predicted

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> Samples:
        """These rows alone, in this order."""
        order = rows.tolist()
        return Samples(
            [self.keys[row] for row in order],
            [self.paths[row] for row in order],
            self.classes,
            *(values[rows] for values in (self.label, self.predicted, self.confidence, self.truth)),
        )


def find_evaluated(told: Told, split: str | None = None, weights: Mapping[str, Any] | None = None) -> Evaluated | None:
    """The evaluation of the weights in `model/` on `split`: by default on test, else on val, else on any split.

    `weights` are others, `{"name", "step"}`. None where there is none, or only of other weights, of other data, of
    several views of each image, or with a temperature applied: so the runs that are compared never have one calibrated
    and one not.
    """
    found: dict[str, Evaluated] = {}
    calibrated: dict[tuple[str, int], Mapping[str, Any]] = {}
    for name in told.folder.store.list(RunFolder.PREDICTIONS):
        summary = told.folder.read_json(f"{RunFolder.PREDICTIONS}/{name}") if name.endswith(".json") else None
        if not isinstance(summary, dict) or "data" in summary or "tta" in summary or not _is_of(summary, told, weights):
            continue
        each = Evaluated(f"{RunFolder.PREDICTIONS}/{name.removesuffix('.json')}.parquet", summary)
        if (summary.get("calibration") or {}).get("temperature", 1) != 1:
            calibrated[each.split, each.step] = summary
            continue
        before = found.get(each.split)
        if before is None or each.step >= before.step:
            found[each.split] = each
    wanted = [split] if split else ["test", "val", *sorted(found)]
    plain = next((found[name] for name in wanted if name in found), None)
    return plain and replace(plain, calibrated=calibrated.get((plain.split, plain.step)))


def _is_of(summary: Mapping[str, Any], told: Told, wanted: Mapping[str, Any] | None) -> bool:
    """Whether it is of the weights that are wanted, or of those in `model/`; where that is not there yet, of any."""
    if not told.model and wanted is None:
        return True
    weights, kept = summary.get("weights") or {}, wanted or told.model.get("weights") or {}
    same = (weights.get("name"), weights.get("step")) == (kept.get("name"), kept.get("step"))
    sha256 = (summary.get("provenance") or {}).get("sha256")
    return same and sha256 in (told.model.get("sha256"), "", None)


def open_predictions(folder: RunFolder, evaluated: Evaluated, column: str) -> tuple[Any, dict[str, Any]] | None:
    """The Parquet file of an evaluation, and what it says of itself; None where it is gone, or has not this column."""
    data = folder.store.find_bytes(evaluated.file)
    if data is None:
        return None
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(data))
    if column not in file.schema_arrow.names:
        return None
    return file, json.loads((file.schema_arrow.metadata or {}).get(_METADATA, b"{}"))


def read_samples(folder: RunFolder, evaluated: Evaluated) -> Samples | None:
    """The samples of an evaluation; None where its file is gone, or where an image may have any number of classes."""
    opened = open_predictions(folder, evaluated, "label")
    if opened is None:
        return None
    file, about = opened
    table = file.read(columns=list(_COLUMNS)).unify_dictionaries().combine_chunks()
    label, classes = _indices(table["label"])
    predicted, others = _indices(table["predicted"])
    place = {name: index for index, name in enumerate(classes)}
    classes += [name for name in others if name not in place]
    place = {name: index for index, name in enumerate(classes)}
    predicted = np.array([place[name] for name in others], np.int64)[predicted] if len(others) else predicted
    truth = _by_logits(file, label, about) if "logits" in file.schema_arrow.names else _by_top(table, label, classes)
    return Samples(
        table["key"].to_pylist(),
        table["path"].to_pylist(),
        classes,
        label,
        predicted,
        table["confidence"].to_numpy(),
        truth,
    )


def logits_of(file: Any) -> Iterator[np.ndarray]:
    """Those of a file that has them, `[n, C] float64`, a batch at a time: all of them may be more than the memory
    holds."""
    for batch in file.iter_batches(columns=["logits"], batch_size=4096):
        values = batch.column(0)
        yield values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1).astype(np.float64)


def value_of(summary: Mapping[str, Any], name: str) -> float | None:
    """A number of a summary by the name that its interval has, such as `top1`, `f1_macro` or `ece`."""
    if isinstance(summary.get(name), int | float):
        return float(summary[name])
    calibration = summary.get("calibration") or {}
    if isinstance(calibration.get(name), int | float):
        return float(calibration[name])
    metric, _, average = name.rpartition("_")
    value = (summary.get(metric) or {}).get(average) if isinstance(summary.get(metric), Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _indices(column: Any) -> tuple[np.ndarray, list[str]]:
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    array = array.chunk(0) if hasattr(array, "num_chunks") else array
    return array.indices.to_numpy(zero_copy_only=False).astype(np.int64), array.dictionary.to_pylist()


def _by_logits(file: Any, label: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    """Softmax in float64."""
    temperature, truth, start = float(about.get("temperature", 1.0)), np.empty(len(label)), 0
    for logits in logits_of(file):
        logits = (logits - logits.max(axis=1, keepdims=True)) / temperature
        rows = slice(start, start + len(logits))
        picked = logits[np.arange(len(logits)), label[rows]]
        truth[rows] = np.exp(picked - np.log(np.exp(logits).sum(axis=1)))
        start += len(logits)
    return truth


def _by_top(table: Any, label: np.ndarray, classes: list[str]) -> np.ndarray:
    tops = zip(table["top_classes"].to_pylist(), table["top_probabilities"].to_pylist(), strict=True)
    named = (classes[index] for index in label.tolist())
    return np.array([dict(zip(*top, strict=True)).get(name, 0.0) for top, name in zip(tops, named, strict=True)])
