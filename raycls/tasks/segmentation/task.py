"""A class for each pixel: masks as labels, and the overlap of masks as metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raycls.config.names.metrics import SEGMENTATION
from raycls.config.sections.types import NotNegative
from raycls.data.masks.codes import MOST, PART, image_mask, unmarked
from raycls.data.masks.paired import PairedImages, PairedVolumes
from raycls.data.masks.written import type_of
from raycls.data.source import Split
from raycls.errors import ConfigError
from raycls.tasks.base import AUGMENTED, Key, Setting, Task, tensor
from raycls.tasks.crf.dense import Crf, normal, refined
from raycls.tasks.grey import as_rgb, grey
from raycls.tasks.losses.build import refuse_loss
from raycls.tasks.segmentation.cases import CASE, case_of, dice_of, means
from raycls.tasks.segmentation.losses import LOSSES

__all__ = ["Masked", "Segmentation"]


class Masked(NamedTuple):
    """A batch on the device."""

    images: Tensor
    """`[B, channels, ...] float32`."""
    codes: Tensor
    """`[B, ...] uint8`: 0 where a pixel is ignored, else one more than its class."""
    spacing: Tensor
    """The size of a pixel or voxel along each axis, `[B, axes] float32`: in mm of volumes, in pixels of images."""
    patches: int = 0
    """In training: so many rows in a row are patches of one volume; 0: rows are whole samples."""
    windows: dict[str, Tensor] | None = None
    """Where the network gets `images` by sliding windows: what it said of them, once it was asked."""


class Segmentation(Task):
    """One class per pixel. The first class is the background, which the macro averages leave out."""

    measured = ("pixels",)
    several = False
    channels = (1, 3)
    obeys = frozenset(("augment.off_after", "data.channels"))
    metrics = SEGMENTATION
    masks = True
    crf: Crf | None = None
    """What is joined to the answers of an evaluation or a prediction; never to those of a training."""

    def __init__(
        self,
        setting: Setting,
        *,
        loss: Literal["ce_dice", "cross_entropy", "dice", "tversky", "focal"] = "ce_dice",
        values: Sequence[int] | None = None,
        ignore_index: int | None = None,
        background: bool = False,
        alpha: NotNegative = 0.3,
        beta: NotNegative = 0.7,
        gamma: NotNegative = 2.0,
    ) -> None:
        """`values` are what a pixel of each class has in a mask (0, 1, 2 ...), `ignore_index` what one has that counts
        nowhere. `background` counts the first class in the loss of overlap and in the macro averages."""
        super().__init__(setting)
        refuse_loss(setting.loss, "segmentation", "task.args takes loss, alpha, beta and gamma")
        size = len(setting.classes)
        self._values = tuple(range(size)) if values is None else tuple(values)
        self._ignored = ignore_index
        _check_values(self._values, ignore_index, setting.classes)
        self._first = 0 if background else 1
        given = {"alpha": alpha, "beta": beta, "gamma": gamma, "background": float(background)}
        usual = {"alpha": 0.3, "beta": 0.7, "gamma": 2.0}
        if loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)}")
        self._loss = LOSSES[loss]
        vain = [name for name, value in usual.items() if given[name] != value and name not in self._loss.takes]
        if vain:
            raise ConfigError(
                f"{', '.join(vain)} has no effect on this loss",
                where="task.args",
                found=f"loss: {loss}",
                valid="alpha and beta with loss: tversky, gamma with loss: focal",
                fix="leave it out, or choose the other loss",
            )
        self._given = given
        mean, std = (
            torch.tensor(each, dtype=torch.float64) for each in setting.augment.normalisation(setting.channels)
        )
        self._scale = (1 / (setting.planes.white * std)).float().to(setting.device).view(1, -1, 1, 1)
        self._shift = (-mean / std).float().to(setting.device).view(1, -1, 1, 1)

    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """`image` `[H, W, 3] uint8` (or as `Setting.planes` has it), `mask` `[H, W] uint8` as codes, `spacing` `[2]
        float32`; with `augment.off_after` also `augmented` `[] bool`. Without a mask, `size` `[2] int64`: that of the
        file, in the place of its mask."""
        on, known = self.setting.augments(key[1]), PART in split.parts
        codes = image_mask(split, index, self._values, self._ignored) if known else None
        pixels = split.pixels(index)
        whole = unmarked(np.asarray(pixels).shape[:2]) if codes is None else codes
        image, mask = self._paired(key[1], train=train and on)(pixels, whole, key, split.locate(index))
        more = {} if known else {"size": np.array(whole.shape, np.int64)}
        return {"image": image, "mask": mask, "spacing": np.ones(2, np.float32), **self._switched(on, train), **more}

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Masked:
        moved = tensor(arrays["image"], self.setting.device).permute(0, 3, 1, 2)
        images = moved.to(torch.float32, memory_format=self.layout)
        if self.setting.channels < self.setting.planes.channels:
            images = grey(images).contiguous(memory_format=self.layout)
        return self._masked(images.mul_(self._scale).add_(self._shift), arrays)

    def logits(self, model: nn.Module, batch: Masked) -> Tensor:
        """What the network says of each pixel, `[B, C, ...] float32`."""
        found = model(batch.images)
        return (found["out"] if isinstance(found, Mapping) else found).float()

    def numbers(self, labels: np.ndarray, inside: np.ndarray, kind: str) -> np.ndarray:
        """What a mask (`png` or `nifti`) has for the classes `labels`, and where not `inside`: the number of what is
        ignored, or that of the first class."""
        given = self._values if self._ignored is None else (*self._values, self._ignored)
        known = np.array(given, type_of(given, kind))
        return np.where(inside, known[labels], known[0 if self._ignored is None else -1])

    def levels(self, batch: Masked) -> Tensor:
        """The intensities of the images, `[B, K, ...]` in 0..1, as a CRF sees them."""
        return (batch.images - self._shift) / self._scale / self.setting.planes.white

    def answers(self, logits: Tensor, batch: Masked) -> Tensor:
        """`logits`, or what the CRF makes of their probabilities: whichever class has most is the answer."""
        if self.crf is None:
            return logits
        images, spacing = self.levels(batch), batch.spacing.double().tolist()
        each = zip(logits, images, spacing, strict=True)
        return torch.stack([refined(normal(one.clone()), image, self.crf, spacing=mm) for one, image, mm in each])

    def loss(self, model: nn.Module, batch: Masked) -> dict[str, Tensor]:
        """The loss of each sample, added up; `pixels` is the part of the pixels of a sample that are right."""
        logits = self.logits(model, batch)
        there = batch.codes > 0
        hits = (logits.detach().argmax(1) + 1 == batch.codes) & there
        shares = hits.flatten(1).sum(1).double() / there.flatten(1).sum(1).clamp_min(1)
        return {"loss": self._loss(logits, batch.codes, self._given).sum(), "pixels": shares.sum()}

    def counts(self, model: nn.Module, batch: Masked) -> dict[str, Tensor]:
        """`confusion` `[C, C]` of pixels with a row per true class; for each class the sum of `dice` and of `iou` over
        the samples that have it in truth or prediction (`cases`), `absent` those in neither; and the loss."""
        logits = self.logits(model, batch)
        pairs = _confusions(self.answers(logits, batch), batch.codes, len(self.setting.classes))
        each = pairs.double()
        both, truth, said = each.diagonal(dim1=1, dim2=2), each.sum(2), each.sum(1)
        occurs = truth + said > 0
        return {
            "confusion": pairs.sum(0),
            "dice": torch.where(occurs, 2 * both / (truth + said).clamp_min(1), 0).sum(0),
            "iou": torch.where(occurs, both / (truth + said - both).clamp_min(1), 0).sum(0),
            "cases": occurs.sum(0),
            "count": torch.tensor(len(pairs)),
            "loss": self._loss.in_parts(logits, batch.codes, self._given, _CHUNK).double().sum(),
        }

    def summary(self, counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """See `cases.means`."""
        return means(counts, self.setting.classes, self._first)

    def rows(self, model: nn.Module, batch: Masked) -> dict[str, Tensor]:
        """`cases` `[B, C, 6] float64`: for each class what `cases.CASE` names; with a CRF also `alone` `[B, C]`, the
        Dice without it."""
        logits, codes = self.logits(model, batch), batch.codes.cpu().numpy()
        found = self.answers(logits, batch).argmax(1).cpu().numpy()
        spacing, size = batch.spacing.cpu().double().numpy(), len(self.setting.classes)
        made = [case_of(code, one, size, mm.tolist()) for code, one, mm in zip(codes, found, spacing, strict=True)]
        cases = {"cases": torch.from_numpy(np.stack(made) if made else np.zeros((0, size, len(CASE))))}
        if self.crf is None:
            return cases
        pairs = zip(codes, logits.argmax(1).cpu().numpy(), strict=True)
        alone = [dice_of(code, one, size) for code, one in pairs]
        return {**cases, "alone": torch.from_numpy(np.array(alone, np.float64).reshape(-1, size))}

    def shown(self, batch: Masked) -> tuple[np.ndarray, np.ndarray]:
        """The images, and which part of each the classes have."""
        levels = (batch.images - self._shift) / self._scale / (self.setting.planes.white // 255)
        levels = levels.round().clamp(0, 255).to("cpu", torch.uint8)
        return as_rgb(levels).numpy(), self._parts(batch)

    def scalars(self, summary: Mapping[str, Any]) -> dict[str, int | float]:
        """`dice` and `iou` are the macro averages, nothing per class."""
        return {name: summary[name] for name in ("count", *self.metrics)}

    def example(self, sample: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
        height, width, _ = sample["image"].shape
        return (torch.zeros(1, self.setting.channels, height, width, device=self.setting.device),)

    @property
    def separate(self) -> bool:
        ours = type(self).arrays.__module__.startswith("raycls.")
        return ours and all(self._paired(0, train=train).separate for train in (True, False))

    def _masked(self, images: Tensor, arrays: Mapping[str, np.ndarray]) -> Masked:
        codes, spacing = (tensor(arrays[name], self.setting.device) for name in ("mask", "spacing"))
        return Masked(images, codes, spacing)

    def _switched(self, on: bool, train: bool) -> dict[str, np.ndarray]:
        return {AUGMENTED: np.asarray(on)} if train and self.setting.off_epoch else {}

    def _parts(self, batch: Masked) -> np.ndarray:
        codes, size = batch.codes.cpu().flatten(1), len(self.setting.classes)
        counts = torch.stack([(codes == label + 1).sum(1) for label in range(size)], 1).double()
        return (counts / counts.sum(1, keepdim=True).clamp_min(1)).float().numpy()

    def _paired(self, epoch: int, *, train: bool) -> Any:
        """The operations of evaluation, or of training at the size of `epoch`."""
        augment, most = self.setting.augment, self.setting.max_pixels
        size = self.setting.size(epoch) if train else self.setting.image_size
        if (train, size) not in self._made:
            listed = augment.train if train else augment.eval
            how: dict[str, Any] = {"train": train, "image_size": size, "max_pixels": most}
            of_images = partial(PairedImages, planes=self.setting.planes)
            self._made[train, size] = (PairedVolumes if self.volumes else of_images)(listed, **how)
        return self._made[train, size]

    @cached_property
    def _made(self) -> dict[tuple[bool, int], Any]:
        return {}


_CHUNK = 2**20
"""Pixels that are evaluated at a time: of a volume all at once would take many times its memory."""


def _confusions(logits: Tensor, codes: Tensor, size: int) -> Tensor:
    """Pixels of each sample by true (rows) and predicted class, `[B, C, C] int64`, on the CPU."""
    counts = torch.zeros(len(codes), size * size, dtype=torch.int64)
    for cells, answers, code in zip(counts, logits.flatten(2), codes.flatten(1), strict=True):
        for part, truth in zip(answers.split(_CHUNK, 1), code.split(_CHUNK), strict=True):
            found, truth = part.argmax(0).cpu(), truth.cpu().long()
            there = truth > 0
            cells += torch.bincount((truth[there] - 1) * size + found[there], minlength=size * size)
    return counts.view(-1, size, size)


def _check_values(values: Sequence[int], ignored: int | None, classes: Sequence[str]) -> None:
    """ConfigError where the values of pixels do not tell the classes apart."""
    if len(classes) > MOST:
        raise ConfigError("masks have too many classes", found=str(len(classes)), valid=f"at most {MOST}")
    if len(values) != len(classes) or len({*values, ignored}) != len(values) + 1:
        raise ConfigError(
            "the values of the pixels do not tell the classes apart",
            where="task.args.values, task.args.ignore_index",
            found=f"values {list(values)}, ignored {ignored}, and {len(classes)} classes: {', '.join(classes)}",
            valid="one integer for each class, and another one for what is ignored",
            fix="give task.args.values as many numbers as data.source.args.classes has names",
        )
