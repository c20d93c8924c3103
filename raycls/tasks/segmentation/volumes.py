"""A class for each voxel: segmentation on `[C, D, H, W]`, with distances in millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raycls.config.sections.types import NotNegative
from raycls.data.masks.codes import volume_mask
from raycls.data.source import Split
from raycls.data.volumes.geometry import at_spacing, nearest
from raycls.data.volumes.reading import volume_of
from raycls.errors import DataError
from raycls.tasks.base import Key, Setting, tensor
from raycls.tasks.segmentation.task import Masked, Segmentation
from raycls.tasks.volumes import refuse_unfit

__all__ = ["VolumeSegmentation"]


class VolumeSegmentation(Segmentation):
    """One class per voxel. Windows (`data.window`) are the channels, and come to the network in -1..1."""

    volumes = True
    channels = ()

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
        `augment.off_after` also `augmented` `[] bool`."""
        on, wanted = self.setting.augments(key[1]), self.setting.volumes
        reader: Any = split.reader
        spacing = np.asarray(reader.spacing(index) if hasattr(reader, "spacing") else (1, 1, 1), np.float64)
        codes = volume_mask(split, index, self._values, self._ignored)
        if wanted.spacing is not None:
            codes = nearest(codes, *at_spacing(codes.shape, spacing.tolist(), wanted.spacing))
            spacing = np.asarray(wanted.spacing, np.float64)
        volume = volume_of(split, index, wanted)
        if volume.shape[1:] != codes.shape:
            raise DataError(
                "a mask has another size than its volume",
                where=split.locate(index),
                found=f"{list(codes.shape)}, and {list(volume.shape[1:])} voxels",
                valid="the size of the volume",
            )
        volume, mask, spacing = self._paired(key[1], train=train and on)(volume, codes, key, spacing)
        made = {"volume": volume, "mask": mask, "spacing": spacing.astype(np.float32)}
        return {**made, **self._switched(on, train)}

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Masked:
        volumes = tensor(arrays["volume"], self.setting.device).mul(2).sub_(1).contiguous(memory_format=self.layout)
        return self._masked(volumes, arrays)

    def shown(self, batch: Masked) -> tuple[np.ndarray, np.ndarray]:
        """The middle slice of the first window, and which part of the volume the classes have."""
        middle = batch.images[:, 0, batch.images.shape[2] // 2]
        levels = ((middle + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
        return levels[..., None].expand(-1, -1, -1, 3).numpy(), self._parts(batch)

    def example(self, sample: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *sample["volume"].shape, device=self.setting.device),)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last_3d if self.setting.channels_last else torch.contiguous_format
