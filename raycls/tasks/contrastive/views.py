"""What contrastive tasks have in common: two views of each image, and a probe of what the features are worth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.data.source import Split
from raycls.tasks.base import Key, Setting
from raycls.tasks.classification import Classification
from raycls.tasks.losses.build import refuse_loss

__all__ = ["Contrastive", "Views", "full_precision"]


class Views(NamedTuple):
    """Two views `[B, 3, H, W] float32` of each image, and the `labels` `[B] int64`, on the device."""

    images: Tensor
    others: Tensor
    labels: Tensor


class Contrastive(Classification):
    """The network learns which views are of one image. The labels train the probe alone, and nothing else.

    Each view is drawn by (seed, epoch, sample, view). An evaluation is that of the probe, on one view.
    """

    minimised = ("contrast", "probe")
    measured = ("top1", "matched")
    obeys = frozenset(
        ("data.channels",)
    )  # two views are mixed by nobody, are two without augmentation no more, and nothing is balanced

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        refuse_loss(setting.loss, "of pretraining", "task.args has its temperature")

    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """As in classification, and in training a second view of the image, `other` `[H, W, 3] uint8`."""
        image, label = split.pixels(index), np.asarray(split.labels[index])
        first = {"image": self.view(image, key, train=train), "label": label}
        second: Any = (*key, 1)
        return {**first, "other": self.view(image, second, train=True)} if train else first

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Any:
        labelled = super().batch(arrays, train=train)
        if not train:
            return labelled
        other = super().batch({**arrays, "image": arrays["other"]}, train=train)
        return Views(labelled.images, other.images, labelled.labels)

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """`contrast` and `probe`, and their measures; `batch` is `Views`."""
        return self.contrasted(model, batch)

    @abstractmethod
    def contrasted(self, model: nn.Module, views: Views) -> dict[str, Tensor]: ...

    @abstractmethod
    def network(self, model: nn.Module) -> nn.Module: ...

    def probed(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The sums of the probe, for `logits` of one view or of both (`[B, C]` or `[2B, C]`)."""
        views = len(logits) // len(labels)
        labels, logits = labels.repeat(views), logits.float()
        return {
            "probe": F.cross_entropy(logits, labels, reduction="sum") / views,
            "top1": (logits.detach().argmax(1) == labels).sum() / views,
        }


def full_precision(images: Tensor) -> torch.autocast:
    """Similarities are compared at temperatures near 0.1: they are computed in float32 whatever the run's precision."""
    return torch.autocast(images.device.type, enabled=False)
