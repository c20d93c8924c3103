"""One label per image, and what a teacher says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.config.sections.types import Fraction, NotNegative, Positive
from raycls.models.teaching.features import features_noted
from raycls.models.teaching.teacher import Images, Teacher, open_teacher
from raycls.tasks.base import Setting
from raycls.tasks.classification import Classification, Labelled

__all__ = ["Distillation", "similarity"]


class Distillation(Classification):
    """Knowledge distillation (Hinton, Vinyals and Dean 2015, section 2): (1 - `weight`) times the loss of the labels
    plus `weight` T^2 times the Kullback-Leibler divergence of the teacher's softmax from the student's, both at the
    temperature T = `temperature`. T^2 keeps the size of the gradient whatever T is.

    `features` times the similarity-preserving loss (`similarity`) is added where that is above 0.

    The defaults are those that Tian et al. 2020 (contrastive representation distillation, appendix) compare with.
    """

    minimised = ("label_loss", "teacher_loss")
    obeys = Classification.obeys - {"data.weight"}  # which part of the loss it would weigh, nobody has said

    def __init__(
        self,
        setting: Setting,
        *,
        teacher: str | dict[str, Any],
        temperature: Positive = 4.0,
        weight: Fraction = 0.9,
        features: NotNegative = 0.0,
    ) -> None:
        super().__init__(setting)
        self._given, self._temperature, self._weight, self._features = teacher, temperature, weight, features
        if features:
            self.minimised, self.least = (*self.minimised, "feature_loss"), 2

    def loss(self, model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        """The parts of the loss with their weights, and `top1`."""
        with self._noted(getattr(model, "module", model), len(self.setting.classes)) as seen:
            logits = model(batch.images).float()
        with self._noted(self._teacher.network, self._teacher.known) as taught:
            theirs = self._teacher.logits(batch.images, self._images)
        sums = self.judged(logits, batch)
        own, theirs = (F.log_softmax(each / self._temperature, dim=1) for each in (logits, theirs))
        divergence = F.kl_div(own, theirs, reduction="sum", log_target=True)
        label_loss = (1 - self._weight) * sums.pop("loss")
        parts = {"label_loss": label_loss, "teacher_loss": self._weight * self._temperature**2 * divergence}
        if self._features:
            parts["feature_loss"] = self._features * similarity(seen[-1], taught[-1])
        return {**parts, **sums}

    def outside(self) -> Mapping[str, Any]:
        return {"teacher": self._teacher.facts}

    def notes(self) -> Sequence[str]:
        return self._teacher.notes

    def _noted(self, network: nn.Module, num_classes: int) -> AbstractContextManager[list[Tensor]]:
        """The features of what `network` computes within, where the loss looks at them."""
        return features_noted(network, num_classes, "task.args.features") if self._features else nullcontext([])

    @property
    def _images(self) -> Images:
        return Images(*self.setting.augment.normalisation(self.setting.channels))

    @cached_property
    def _teacher(self) -> Teacher:
        """Opened when it is first asked for: who only makes samples, evaluates or predicts does without it."""
        setting = self.setting
        if setting.device is None:
            raise RuntimeError("a task without a device has no teacher")
        return open_teacher(self._given, setting.classes, self._images, setting.device, self.layout)


def similarity(own: Tensor, theirs: Tensor) -> Tensor:
    """How differently two networks see which images of a micro-batch are alike (Tung and Mori 2019, equations 2 to 4):
    B times the mean square of the difference between their `[B, B]` products of features, each row of length 1.

    `own` `[B, D]` and `theirs` `[B, E]` may be of any width, so nothing has to be trained beside the student.
    """
    with torch.autocast(own.device.type, enabled=False):
        ours, others = (F.normalize(each.float() @ each.float().T, dim=1) for each in (own, theirs))
    return (ours - others).square().sum() / len(own)
