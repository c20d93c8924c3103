"""From which probability on a class of any number is a label of an image: one for all classes, or one for each.

`raycls eval RUN --split val` finds for each class the threshold of the highest F1, and writes it into the summary
beside its predictions. Who gives labels applies these where the user asks for it (`--thresholds stored`), or those of a
file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.config.paths import expand
from raycls.config.write import word
from raycls.errors import ConfigError
from raycls.quantities import first_names
from raycls.session.trained.predictions import file_of
from raycls.session.trained.trained import Trained
from raycls.tasks.scores.multilabel import unfitted

__all__ = ["STORED", "Thresholds", "thresholds_of"]

STORED = "stored"
"""What `--thresholds` takes for those that the run found on its validation split."""
_HALF = 0.5
_FORM = (
    '{"cat": 0.4, "dog": 0.6}, a number from 0 to 1 for each class, or what raycls eval RUN --split val --json prints'
)


@dataclass(frozen=True)
class Thresholds:
    """Plain values: they travel to other processes."""

    values: tuple[float, ...]
    """In the order of the classes."""
    source: str
    """Where they come from: a number, a file of the run folder, or one that the user named."""
    unfitted: tuple[str, ...] = ()
    """Classes without an image where the others were found: theirs are 0.5."""

    @property
    def told(self) -> tuple[str, ...]:
        """A line about the classes that are `unfitted`, or none."""
        names = first_names(self.unfitted)
        return (f"no threshold can be fitted without an image, 0.5 is kept for: {names}",) if names else ()

    @property
    def array(self) -> np.ndarray:
        """`[C] float64`."""
        return np.array(self.values, np.float64)


def thresholds_of(trained: Trained, *, threshold: float | None = None, file: str | None = None) -> Thresholds | None:
    """Those that were asked for, one number or a file, else 0.5; None where an image has one class.

    ConfigError where an image has one class and some were asked for, where both are given, or where `file` has not
    one for each class.
    """
    given = "--threshold" if threshold is not None else "--thresholds" if file is not None else ""
    if not trained.reading.several:
        if given:
            raise ConfigError(
                "an image of this run has one class, the likeliest one, and no threshold",
                where=given,
                found=f"task.name: {trained.run.task.name}",
                valid="a run whose images have any number of classes, task.name: multilabel",
                fix=f"leave {given} out",
            )
        return None
    if threshold is not None and file is not None:
        raise ConfigError(
            "there are two kinds of thresholds", where="--threshold, --thresholds", fix="leave one of them out"
        )
    if file is None:
        value = _HALF if threshold is None else threshold
        return Thresholds((value,) * len(trained.classes), f"{value:g}")
    if file == STORED:
        return _stored(trained)
    path = expand(file, where="--thresholds")
    try:
        with open(path, encoding="utf-8") as stream:
            read: Any = json.load(stream)
    except (OSError, ValueError) as error:
        missing = not os.path.exists(path)
        raise ConfigError(
            "there is no such file" if missing else "the thresholds cannot be read",
            where=f"--thresholds {file}",
            found=None if missing else str(error),
            valid=f"{STORED}, or a JSON file: {_FORM}",
        ) from error
    return _read(read, trained.classes, f"--thresholds {file}", file)


def _stored(trained: Trained) -> Thresholds:
    """Those of the evaluation of these weights on the validation split."""
    name = file_of("val", trained.weights.name).removesuffix(".parquet") + ".json"
    found = trained.folder.read_json(name)
    here, provenance = trained.provenance, (found or {}).get("provenance") or {}
    if found is None or any(provenance.get(key) != here[key] for key in ("step", "sha256")):
        weights = "" if trained.weights.name == "best" else f" --weights {trained.weights.name}"
        raise ConfigError(
            "the run has no thresholds of these weights",
            where=f"--thresholds {STORED}",
            found=f"{trained.folder.store.describe(name)} is of others, or not there",
            fix=f"find them first: raycls eval {word(trained.name)} --split val{weights}",
        )
    return _read(found, trained.classes, trained.folder.store.describe(name), name)


def _read(read: Any, classes: Sequence[str], where: str, source: str) -> Thresholds:
    values = _values(read, classes, where)
    per_class = read.get("per_class")
    return Thresholds(values, source, unfitted(per_class) if isinstance(per_class, Mapping) else ())


def _values(read: Any, classes: Sequence[str], where: str) -> tuple[float, ...]:
    if isinstance(read, Mapping) and isinstance(read.get("per_class"), Mapping):
        read = {name: (each or {}).get("best_threshold") for name, each in read["per_class"].items()}
    if not isinstance(read, Mapping):
        raise ConfigError("these are no thresholds", where=where, found=type(read).__name__, valid=_FORM)
    missing, strange = [name for name in classes if name not in read], [name for name in read if name not in classes]
    if missing or strange:
        raise ConfigError(
            "the thresholds are not those of the classes of the run",
            where=where,
            found="; ".join(
                f"{what} {', '.join(map(str, names[:5]))}"
                for what, names in (("none of", missing), ("one of", strange))
                if names
            ),
            valid=f"{len(classes)} classes: {', '.join(classes[:5])}{' ...' if len(classes) > 5 else ''}",
        )
    for name in classes:
        value = read[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(
                "a threshold is no probability", where=f"{where}: {name}", found=repr(value), valid="0 to 1"
            )
    return tuple(float(read[name]) for name in classes)
