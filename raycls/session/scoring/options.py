"""What an evaluation is asked for beside its counts: plain values that travel to every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIT", "TTA", "Saved", "Scoring"]

FIT = "fit"
"""The name in `Job.dataset` of the split that a temperature or a threshold is fitted on."""

TTA = Literal["off", "mirror", "flips", "turns"]
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
    threshold: str = ""
    """The rule of the threshold of two classes; empty for none."""
    positive: str = ""
    """The class that the threshold is for; empty for the second one."""
    data: str | None = None
    """The path of other data, where it is evaluated as a whole."""
    provenance: tuple[tuple[str, str | int | None], ...] = ()
    """What a file says of the run and the weights."""

    @property
    def fits(self) -> bool:
        """Whether something is fitted on the validation split."""
        return self.calibrate or (bool(self.threshold) and not _is_number(self.threshold))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
