"""What the built-in tasks measure: the one list of metrics, which a config is checked against without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["CLASSIFICATION", "METRICS", "MULTILABEL", "SEGMENTATION", "Metric", "Mode"]

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Metric:
    """What a number that an evaluation gives can be, and which way is better."""

    mode: Mode
    """Whether more (`max`) or less (`min`) is better."""
    low: float = 0.0
    high: float = math.inf
    """The values it can have, both ends included."""
    title: str = ""
    """What the axis of a chart calls it, where that is not its name."""

    @property
    def share(self) -> bool:
        """Whether it is a part of a whole, in 0..1."""
        return (self.low, self.high) == (0.0, 1.0)


CLASSIFICATION: Mapping[str, Metric] = {
    "top1": Metric("max", 0.0, 1.0, "accuracy"),
    "top5": Metric("max", 0.0, 1.0),
    "loss": Metric("min"),
    "f1_macro": Metric("max", 0.0, 1.0),
    "f1_weighted": Metric("max", 0.0, 1.0),
}

MULTILABEL: Mapping[str, Metric] = {
    "map": Metric("max", 0.0, 1.0, "mean average precision"),
    "loss": Metric("min"),
    "f1_macro": Metric("max", 0.0, 1.0),
    "f1_micro": Metric("max", 0.0, 1.0),
    "exact": Metric("max", 0.0, 1.0, "images with every class right"),
}

SEGMENTATION: Mapping[str, Metric] = {
    "dice": Metric("max", 0.0, 1.0, "Dice, mean over classes"),
    "loss": Metric("min"),
    "iou": Metric("max", 0.0, 1.0, "IoU, mean over classes"),
    "pixels": Metric("max", 0.0, 1.0, "pixels that are right"),
}

METRICS: Mapping[str, Mapping[str, Metric]] = {
    **dict.fromkeys(("classification", "distillation", "simclr", "moco", "volume_classification"), CLASSIFICATION),
    "multilabel": MULTILABEL,
    **dict.fromkeys(("segmentation", "volume_segmentation"), SEGMENTATION),
}
"""The metrics of each built-in task. The first one is what the displays show beside the loss."""
