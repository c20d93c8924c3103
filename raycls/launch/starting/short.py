"""Whether an evaluation is done in this process because that takes less time than the start of a Ray would.

The summary and the predictions are the same bytes on any number of workers, so only the time is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from raycls.cluster.environment import joined_address
from raycls.config.sections.run import Run
from raycls.errors import RayclsError
from raycls.run import history
from raycls.run.folder import RunFolder
from raycls.session.scoring.opened import Evaluation
from raycls.session.scoring.options import FIT
from raycls.session.setup import device_of

__all__ = ["placed", "seconds_in_one_process", "shorter_here"]

_START_S = 5.0
"""No private Ray had its first worker sooner; see the table of a start in tests/benchmarks/README.md."""
_MOST_VIEWS = 8
"""Of an image, with `--tta`."""


def placed(what: Evaluation, folder: RunFolder, overrides: Sequence[str]) -> tuple[Run, str]:
    """The config of an evaluation as it is placed, and what is said of it."""
    rows = sum(len(what.dataset.splits[split]) for split in {what.split, FIT} & what.dataset.splits.keys())
    views = 1 if what.scoring is None or what.scoring.tta == "off" else _MOST_VIEWS
    if what.run.scale.max_workers == 0 or not shorter_here(what.run, folder, rows * views, overrides):
        return what.run, ""
    scale = what.run.scale.model_copy(update={"workers": 0})
    return what.run.model_copy(update={"scale": scale}), " in this process: sooner than Ray would start"


def shorter_here(run: Run, folder: RunFolder, rows: int, overrides: Sequence[str]) -> bool:
    """Whether to evaluate `rows` samples in this process though the config asks for workers.

    Not where a Ray is there to be joined, or where `overrides` say who computes.
    """
    told = any(override.startswith(("scale.", "data.executor", "data.processes")) for override in overrides)
    if told or joined_address() or run.data.executor == "ray":
        return False
    seconds = seconds_in_one_process(folder, rows, device_of(run, torch.cuda.device_count()))
    return seconds is not None and seconds <= _START_S


def seconds_in_one_process(folder: RunFolder, rows: int, device: str) -> float | None:
    """At most how long one process takes to evaluate `rows` samples on a `device`, by the rate of the training.

    A sample that is trained on is read, decoded and computed too, and its gradient with it. None where the run did
    not train on such a device, or wrote down no rate.
    """
    with suppress(RayclsError):  # what is damaged is told by what needs it
        attempts = {attempt.attempt: attempt for attempt in folder.attempts()}
        for record in reversed(history.read(folder)):
            attempt, rate = attempts.get(record.get("attempt", 0)), record.get("images_per_second")
            if record.get("kind") == "train" and attempt is not None and isinstance(rate, float) and rate > 0:
                return rows * attempt.workers / rate if attempt.rest.get("device") == device else None
    return None
