"""Any number of labels per image: each class is a question of its own, and the metrics of their rankings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.config.names.metrics import MULTILABEL
from raycls.config.sections.types import NotNegative
from raycls.data.source import Split
from raycls.tasks.base import Key, Setting
from raycls.tasks.classification import Classification, Labelled
from raycls.tasks.losses.build import refuse_loss
from raycls.tasks.reading import SEVERAL
from raycls.tasks.scores.multilabel import histogram_of, summarise

__all__ = ["MultiLabel"]


class MultiLabel(Classification):
    """Any number of labels per image. `labels` of a batch are `[B, C] float32`, 1 where an image has the class."""

    measured = ()
    metrics = MULTILABEL
    several = True
    reading = SEVERAL
    obeys = frozenset(("augment.batch", "augment.off_after", "data.channels", "data.weight"))

    def __init__(
        self, setting: Setting, *, gamma_positive: NotNegative = 0.0, gamma_negative: NotNegative = 0.0
    ) -> None:
        """Binary cross entropy, focused on classes that are judged wrongly where the exponents are above 0.

        Lin et al. 2017 (focal loss) with one exponent; Ridnik et al. 2021 (asymmetric loss), equation 4, with two.
        """
        super().__init__(setting)
        refuse_loss(setting.loss, "multilabel", "task.args takes gamma_positive and gamma_negative")
        self._gammas = gamma_positive, gamma_negative

    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """`image` `[H, W, 3] uint8` and `label` `[C] float32`."""
        made = super().arrays(split, index, key, train=train)
        # images that are to be labelled have none
        there = np.zeros(len(self.setting.classes)) if split.sets is None else split.sets[split.labels[index]]
        return {**made, "label": there.astype(np.float32)}

    def loss(self, model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        """The mean over the classes, summed over the samples."""
        logits = model(batch.images).float()
        costs = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
        if self._gammas != (0.0, 0.0):
            wrong = (batch.labels - logits.sigmoid()).abs()
            gamma = batch.labels * self._gammas[0] + (1 - batch.labels) * self._gammas[1]
            costs = costs * wrong**gamma
        each = costs.mean(1)
        return {"loss": (each if batch.weights is None else each * batch.weights).sum()}

    def counts(self, model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        """`histogram` `[C, 2, BINS]` of the logits without and with each class, `exact`, and the binary cross entropy,
        the mean over the classes, summed as `loss`."""
        logits, there = model(batch.images).double(), batch.labels > 0.5
        cells = histogram_of(logits.numpy(force=True), there.numpy(force=True))
        costs = F.binary_cross_entropy_with_logits(logits, batch.labels.double(), reduction="none")
        return {
            "histogram": torch.from_numpy(cells),
            "exact": ((logits >= 0) == there).all(1).sum(),
            "loss": costs.mean(1).sum(),
        }

    def summary(self, counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return summarise(counts["histogram"], int(counts["exact"]), float(counts["loss"]), self.setting.classes)

    def scalars(self, summary: Mapping[str, Any]) -> dict[str, int | float]:
        """`map` and so on, nothing per class."""
        return {name: summary[name] for name in ("count", *self.metrics)}

    def constant(self, metric: str) -> str:
        return ""
