"""What an evaluation is asked for beside its counts: plain values that travel to every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from raycls.errors import CheckpointError

__all__ = ["FIT", "FITTED_ON", "TTA", "UNWRITTEN", "Saved", "Scoring", "unwritten"]

FITTED_ON = "val"
"""The split of a run that a temperature or a threshold is fitted on."""
FIT = "fit"
"""Its name in `Job.dataset`."""

TTA = Literal["off", "mirror", "flips", "turns"]
UNWRITTEN = "unwritten"
"""In a summary: why there is no file of predictions, as the fields of a CheckpointError. The numbers are not lost."""
Saved = Literal["full", "top", "off"]


@dataclass(frozen=True)
class Scoring:
    """The options of `raycls eval`."""

    predictions: Saved = "full"
    """What is written of each row: its logits too, without them, or nothing."""
    tta: TTA = "off"
    """Which views of each sample are averaged: a name of `views.VIEWS`."""
    by: tuple[str, ...] = ()
    """Columns of the manifest, by whose values the metrics are told apart."""
    calibrate: bool = False
    """Whether a temperature is fitted, and kept."""
    calibrated: bool = False
    """Whether the temperature that was kept is applied; of `calibrate` it is in any case."""
    threshold: str = ""
    """The rule of the threshold of two classes; empty for none."""
    positive: str = ""
    """The class that the threshold is for; empty for the second one."""
    crf: bool = False
    """Whether a CRF is joined to masks."""
    joined: tuple[tuple[str, Any], ...] = ()
    """What `model/crf.json` says of that CRF; `opened` looks it up."""
    data: str | None = None
    """The path of other data, where it is evaluated as a whole."""
    file: str = "predictions/rows.parquet"
    """Where the predictions are written in the run folder; `opened` names it after what is evaluated."""
    provenance: tuple[tuple[str, str | int | None], ...] = ()
    """What a file says of the run and the weights."""

    @property
    def applies_temperature(self) -> bool:
        """Whether the probabilities are calibrated ones."""
        return self.calibrate or self.calibrated

    @property
    def summary_file(self) -> str:
        """Beside `file`: the summary as `raycls eval --json` prints it, with the `provenance` of its weights."""
        return self.file.removesuffix(".parquet") + ".json"

    @property
    def fits_threshold(self) -> bool:
        """Whether the threshold is chosen by a rule, and is no number."""
        return bool(self.threshold) and not _is_number(self.threshold)

    @property
    def fits(self) -> bool:
        """Whether something is fitted on the validation split."""
        return self.calibrate or self.fits_threshold


def unwritten(error: CheckpointError) -> dict[str, Any]:
    """What a summary says where the files of its predictions cannot be written."""
    return {UNWRITTEN: {**error.to_dict(), "fix": "--predictions off evaluates without writing them"}}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
