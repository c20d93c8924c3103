"""One label per image: cross entropy, and the metrics of a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.config.names.metrics import CLASSIFICATION
from raycls.data.images import operations
from raycls.data.images.decoding.decode import Pixels
from raycls.data.images.decoding.turbo import Encoded
from raycls.data.images.operations import Augment
from raycls.data.source import Split
from raycls.tasks.base import AUGMENTED, Key, Setting, Task, augmented, tensor
from raycls.tasks.grey import as_rgb, grey
from raycls.tasks.losses.build import Loss, balanced_loss, each_of
from raycls.tasks.losses.labels import main_class, shares
from raycls.tasks.mix.build import BatchOperation, build_mix
from raycls.tasks.scores.probabilities import TOP, highest

__all__ = ["Classification", "Labelled", "summarise"]


class Labelled(NamedTuple):
    """`images` `[B, 3, H, W] float32` (1 of grey values), `labels` `[B] int64` or, where they are mixed, the
    shares of the classes `[B, C] float32`; with `data.weight` how much each counts, `[B] float32`; on the device."""

    images: Tensor
    labels: Tensor
    weights: Tensor | None = None


class Classification(Task):
    """One label per image."""

    measured = ("top1",)
    several = False
    channels = (1, 3)
    obeys = frozenset(("augment.batch", "augment.off_after", "data.channels", "data.weight", "loss.balance"))
    metrics = CLASSIFICATION

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        mean, std = (
            torch.tensor(values, dtype=torch.float64) for values in setting.augment.normalisation(setting.channels)
        )
        # (x / white - mean) / std as one multiplication and one addition
        self._scale = (1 / (setting.planes.white * std)).float().to(setting.device).view(1, -1, 1, 1)
        self._shift = (-mean / std).float().to(setting.device).view(1, -1, 1, 1)

    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """`image` `[H, W, 3] uint8` (or as `Setting.planes` has it) and `label` `[] int64`; with `augment.off_after`
        also `augmented` `[] bool`, with `data.weight` also `weight` `[] float32`."""
        on = self.setting.augments(key[1])
        switched = {AUGMENTED: np.asarray(on)} if train and self.setting.off_epoch else {}
        if train and split.weights is not None:
            switched["weight"] = split.weights.weight(index)
        encoded = self._augment(key[1], train=train and on).encoded
        image = self.view(split.encoded(index) if encoded else split.pixels(index), key, train=train and on)
        return {"image": image, "label": np.asarray(split.labels[index]), **switched}

    @property
    def separate(self) -> bool:
        ours = all(getattr(type(self), name).__module__.startswith("raycls.") for name in ("arrays", "view"))
        return ours and all(self._augment(0, train=train).separate for train in (True, False))

    def view(self, image: Pixels | Encoded, key: Key, *, train: bool) -> np.ndarray:
        """`image` after the operations of training, or of evaluation, `[H, W, 3] uint8`."""
        return self._augment(key[1], train=train)(image, key)

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Labelled:
        moved = tensor(arrays["image"], self.setting.device).permute(0, 3, 1, 2)
        images = moved.to(torch.float32, memory_format=self.layout)
        if self.setting.channels < self.setting.planes.channels:
            images = grey(images).contiguous(memory_format=self.layout)
        images, labels = images.mul_(self._scale).add_(self._shift), tensor(arrays["label"], self.setting.device)
        if train and self._mix is not None and augmented(arrays):
            images, labels = self._mix(images, labels)
        weights = tensor(arrays["weight"], self.setting.device) if train and "weight" in arrays else None
        return Labelled(images, labels, weights)

    def loss(self, model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        """The loss, and as `top1` the number of samples whose highest logit is their class; of a mixed sample, that
        with the largest share."""
        return self.judged(model(batch.images).float(), batch)

    def judged(self, logits: Tensor, batch: Labelled) -> dict[str, Tensor]:
        """What `loss` returns, for `logits` `[B, C] float32`."""
        hits = logits.detach().argmax(1) == main_class(batch.labels)
        if batch.weights is not None:
            costs = each_of(self._loss)(logits, batch.labels)
            return {"loss": (costs * batch.weights).sum(), "top1": hits.sum()}
        return {"loss": self._loss(logits, batch.labels), "top1": hits.sum()}

    def counts(self, model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        """`confusion` `[C, C]` with a row per true class, `top5`, and the summed cross entropy as `loss`."""
        size = len(self.setting.classes)
        logits = model(batch.images).double()
        best, labels = highest(logits), batch.labels.cpu()
        cells = torch.bincount(labels * size + best[:, 0], minlength=size * size)
        return {
            "confusion": cells.view(size, size),
            "top5": (best == labels[:, None]).any(1).sum(),
            "loss": F.cross_entropy(logits, batch.labels, reduction="sum"),
        }

    def rows(self, model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        """`logits` `[B, C] float32`."""
        return {"logits": model(batch.images).float()}

    def shown(self, batch: Labelled) -> tuple[np.ndarray, np.ndarray]:
        levels = (batch.images - self._shift) / self._scale / (self.setting.planes.white // 255)
        levels = levels.round().clamp(0, 255).to("cpu", torch.uint8)
        return as_rgb(levels).numpy(), shares(batch.labels, len(self.setting.classes)).cpu().numpy()

    def summary(self, counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return summarise(counts["confusion"], float(counts["loss"]), int(counts["top5"]), self.setting.classes)

    def scalars(self, summary: Mapping[str, Any]) -> dict[str, int | float]:
        """`f1_macro`, `f1_weighted` and so on, nothing per class."""
        values = {key: summary[key] for key in ("count", "loss", "top1", "top5")}
        for name in ("precision", "recall", "f1"):
            for average in ("macro", "weighted"):
                values[f"{name}_{average}"] = summary[name][average]
        return values

    def example(self, sample: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
        height, width, _ = sample["image"].shape
        return (torch.zeros(1, self.setting.channels, height, width, device=self.setting.device),)

    def outputs(self, rows: int) -> tuple[int, int]:
        return rows, len(self.setting.classes)

    def constant(self, metric: str) -> str:
        classes = len(self.setting.classes)
        if metric != "top5" or classes > TOP:
            return ""
        return f"top5 with {classes} classes: every class is among the {TOP} highest"

    @cached_property
    def _loss(self) -> Loss:
        return balanced_loss(self.setting.loss, self.setting.class_counts, self.setting.device)

    @cached_property
    def _mix(self) -> BatchOperation | None:
        return build_mix(self.setting.augment.batch, len(self.setting.classes))

    def _augment(self, epoch: int, *, train: bool) -> Augment:
        """That of evaluation, or of training at the size of `epoch`."""
        augment, most = self.setting.augment, self.setting.max_pixels
        size = self.setting.size(epoch) if train else self.setting.image_size
        if (train, size) not in self._built:
            operations_of = augment.train if train else augment.eval
            how: dict[str, Any] = {"image_size": size, "max_pixels": most, "planes": self.setting.planes}
            self._built[train, size] = operations.build(operations_of, train=train, **how)
        return self._built[train, size]

    @cached_property
    def _built(self) -> dict[tuple[bool, int], Augment]:
        return {}


def summarise(confusion: np.ndarray, loss_sum: float, top5: int, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of one evaluation, as plain JSON.

    `confusion` is `[C, C]` int64 with a row per true class and a column per predicted one, `loss_sum` the sum of
    the losses of all rows, `top5` the number of rows whose class was among the min(5, C) highest logits.

    Gives `count`, `loss` (mean), `top1`, `top5`, `confusion`, and `precision`, `recall` and `f1`, each with
    `per_class` (by class name), `macro` (mean over the classes that occur in the labels or the predictions) and
    `weighted` (mean weighted by the rows of each class); `macro_classes` is the number of classes that the macro
    averages are over, `support` the rows of each class. A division by zero gives 0. All as scikit-learn's
    `precision_recall_fscore_support(..., zero_division=0)` has it.
    """
    if confusion.shape != (len(classes), len(classes)):
        raise ValueError(f"the confusion matrix is {confusion.shape}, there are {len(classes)} classes")
    confusion = confusion.astype(np.int64, copy=False)
    hits, truth, predicted = (np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    count = int(confusion.sum())
    occurs = (truth + predicted) > 0
    scores = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, truth),
        "f1": _ratio(2 * hits, truth + predicted),
    }
    return {
        "count": count,
        "loss": float(loss_sum) / count if count else 0.0,
        "top1": int(hits.sum()) / count if count else 0.0,
        "top5": int(top5) / count if count else 0.0,
        **{name: _averages(values, truth, occurs, classes) for name, values in scores.items()},
        "macro_classes": int(occurs.sum()),
        "support": dict(zip(classes, truth.tolist(), strict=True)),
        "confusion": confusion.tolist(),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above), dtype=np.float64), where=below != 0)


def _averages(values: np.ndarray, truth: np.ndarray, occurs: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "macro": float(values[occurs].mean()) if occurs.any() else 0.0,
        "weighted": float((values * truth).sum() / max(1, truth.sum())),
        "per_class": dict(zip(classes, values.tolist(), strict=True)),
    }
