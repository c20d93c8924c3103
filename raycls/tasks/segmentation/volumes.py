"""A class for each voxel: segmentation on `[C, D, H, W]`, with distances in millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from raycls.config.sections.types import NotNegative
from raycls.data.masks.codes import PART, unmarked, volume_mask
from raycls.data.patches.sampling import patches_of
from raycls.data.source import Split
from raycls.data.volumes.geometry import at_spacing, nearest
from raycls.data.volumes.reading import made_of, values_of, voxels_of
from raycls.data.volumes.windows import ranges_of, scaled
from raycls.errors import DataError
from raycls.tasks.base import Key, Setting, tensor
from raycls.tasks.segmentation.sliding import slid
from raycls.tasks.segmentation.task import Masked, Segmentation
from raycls.tasks.volumes import refuse_unfit

__all__ = ["VolumeSegmentation"]


class VolumeSegmentation(Segmentation):
    """One class per voxel. Windows (`data.window`) are the channels, and come to the network in -1..1."""

    volumes = True
    channels = ()
    obeys = Segmentation.obeys | {"data.patch", "evaluate.sliding_window"}

    def __init__(  # written out: the names and types of a config's `task.args` are read from here, without importing
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
        refuse_unfit(setting)
        super().__init__(
            setting,
            loss=loss,
            values=values,
            ignore_index=ignore_index,
            background=background,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
        )

    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """`volume` `[C, D, H, W] float32`, `mask` `[D, H, W] uint8` as codes, `spacing` `[3] float32` in mm; with
        `augment.off_after` also `augmented` `[] bool`. Of training with `data.patch` the first three are those of each
        patch, `[patches, ...]`. Without a mask, `size` `[3] int64`: that of the file."""
        on, wanted = self.setting.augments(key[1]), self.setting.volumes
        reader: Any = split.reader
        spacing = np.asarray(reader.spacing(index) if hasattr(reader, "spacing") else (1, 1, 1), np.float64)
        if PART not in split.parts:
            return self._alone(split, index, key, spacing)
        codes = volume_mask(split, index, self._values, self._ignored)
        if wanted.spacing is not None:
            codes = nearest(codes, *at_spacing(codes.shape, spacing.tolist(), wanted.spacing))
            spacing = np.asarray(wanted.spacing, np.float64)
        voxels = values_of(split, index, wanted)
        if voxels.shape != codes.shape:
            raise DataError(
                "a mask has another size than its volume",
                where=split.locate(index),
                found=f"{list(codes.shape)}, and {list(voxels.shape)} voxels",
                valid="the size of the volume",
            )
        ranges, operations = ranges_of(voxels, wanted.window), self._paired(key[1], train=train and on)
        if train and self.setting.patch.size != "off":
            parts = patches_of(voxels, codes, ranges, self.setting.patch, key)
            found = [operations(*part, spacing) for part in parts]
            volume, mask, spacing = (np.stack(each) for each in zip(*found, strict=True))
        else:
            volume, mask, spacing = operations(scaled(voxels, ranges), codes, key, spacing)
        made = {"volume": volume, "mask": mask, "spacing": spacing.astype(np.float32)}
        return {**made, **self._switched(on, train)}

    def _alone(self, split: Split, index: int, key: Key, spacing: np.ndarray) -> dict[str, np.ndarray]:
        """A volume without a mask, as an evaluation makes it."""
        wanted = self.setting.volumes
        voxels = voxels_of(split, index)
        volume = made_of(split, index, voxels, wanted)
        spacing = spacing if wanted.spacing is None else np.asarray(wanted.spacing, np.float64)
        volume, mask, spacing = self._paired(key[1], train=False)(volume, unmarked(volume.shape[1:]), key, spacing)
        size = np.array(voxels.shape, np.int64)
        return {"volume": volume, "mask": mask, "spacing": spacing.astype(np.float32), "size": size}

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Masked:
        patches = arrays["volume"].shape[1] if arrays["volume"].ndim == 6 else 0
        if patches:
            arrays = {name: arrays[name].reshape(-1, *arrays[name].shape[2:]) for name in ("volume", "mask", "spacing")}
        volumes = tensor(arrays["volume"], self.setting.device).mul(2).sub_(1).contiguous(memory_format=self.layout)
        windows: dict[str, Tensor] | None = None if train or self.setting.windows.size == "off" else {}
        return self._masked(volumes, arrays)._replace(patches=patches, windows=windows)

    def logits(self, model: nn.Module, batch: Masked) -> Tensor:
        """`[B, C, D, H, W] float32`; of an evaluation with `evaluate.sliding_window` those of its windows, averaged."""
        known = batch.windows
        if known is None:
            return super().logits(model, batch)

        def direct(images: Tensor) -> Tensor:
            images = images.contiguous(memory_format=self.layout)
            return super(VolumeSegmentation, self).logits(model, batch._replace(images=images))

        if "logits" not in known:  # `counts` and `rows` ask of one batch, and the windows of a volume are many
            known["logits"] = slid(direct, batch.images, self.setting.windows)
        return known["logits"]

    def loss(self, model: nn.Module, batch: Masked) -> dict[str, Tensor]:
        """As of images; what the patches of one volume add up to is their mean."""
        sums = super().loss(model, batch)
        return {name: value / batch.patches for name, value in sums.items()} if batch.patches else sums

    def levels(self, batch: Masked) -> Tensor:
        return (batch.images + 1) / 2

    def shown(self, batch: Masked) -> tuple[np.ndarray, np.ndarray]:
        """The middle slice of the first window, and which part of the volume the classes have."""
        middle = batch.images[:, 0, batch.images.shape[2] // 2]
        levels = ((middle + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
        return levels[..., None].expand(-1, -1, -1, 3).numpy(), self._parts(batch)

    def part(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One window, where there are windows."""
        size = self.setting.windows.size
        if size == "off":
            return dict(sample)
        made = dict(sample)
        for name in ("volume", "mask"):
            some = made[name][(..., *map(slice, size))]
            lacking = [side - have for side, have in zip(size, some.shape[-3:], strict=True)]
            made[name] = np.pad(some, [(0, 0)] * (some.ndim - 3) + [(0, more) for more in lacking])
        return made

    def example(self, sample: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *sample["volume"].shape[-4:], device=self.setting.device),)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last_3d if self.setting.channels_last else torch.contiguous_format
