"""One label per volume: the classification of images, on `[C, D, H, W]`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from raycls.config.sections.data import AugmentConfig
from raycls.data.source import Split
from raycls.data.volumes.operations import VolumeAugment, build
from raycls.data.volumes.reading import volume_of
from raycls.errors import ConfigError
from raycls.tasks.base import AUGMENTED, Key, Setting, tensor
from raycls.tasks.classification import Classification, Labelled
from raycls.tasks.losses.labels import shares

__all__ = ["VolumeClassification", "refuse_unfit"]


class VolumeClassification(Classification):
    """One label per volume. Its windows (`data.window`) are the channels, and come to the network in -1..1."""

    volumes = True
    channels = ()
    obeys = frozenset(("augment.off_after", "loss.balance"))

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        refuse_unfit(setting)

    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """`volume` `[C, D, H, W] float32`, `label` `[] int64`; with `augment.off_after` also `augmented` `[] bool`."""
        on = self.setting.augments(key[1])
        switched = {AUGMENTED: np.asarray(on)} if train and self.setting.off_epoch else {}
        volume = volume_of(split, index, self.setting.volumes)
        made = self._operations(key[1], train=train and on)(volume, key)
        return {"volume": made, "label": np.asarray(split.labels[index]), **switched}

    @property
    def separate(self) -> bool:
        ours = type(self).arrays.__module__.startswith("raycls.")
        return ours and all(self._operations(0, train=train).separate for train in (True, False))

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Labelled:
        volumes = tensor(arrays["volume"], self.setting.device).mul(2).sub_(1).contiguous(memory_format=self.layout)
        return Labelled(volumes, tensor(arrays["label"], self.setting.device))

    def shown(self, batch: Labelled) -> tuple[np.ndarray, np.ndarray]:
        """The middle slice of the first window."""
        middle = batch.images[:, 0, batch.images.shape[2] // 2]
        levels = ((middle + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
        images = levels[..., None].expand(-1, -1, -1, 3)
        return images.numpy(), shares(batch.labels, len(self.setting.classes)).cpu().numpy()

    def example(self, sample: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *sample["volume"].shape, device=self.setting.device),)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last_3d if self.setting.channels_last else torch.contiguous_format

    def _operations(self, epoch: int, *, train: bool) -> VolumeAugment:
        """Those of evaluation, or of training at the size of `epoch`."""
        augment, most = self.setting.augment, self.setting.max_pixels
        size = self.setting.size(epoch) if train else self.setting.image_size
        if (train, size) not in self._made:
            listed = augment.train if train else augment.eval
            self._made[train, size] = build(listed, train=train, image_size=size, max_pixels=most)
        return self._made[train, size]

    @cached_property
    def _made(self) -> dict[tuple[bool, int], VolumeAugment]:
        return {}


def refuse_unfit(setting: Setting) -> None:
    """ConfigError where channels or normalisation are not those of volumes."""
    wanted = setting.volumes
    if setting.channels != wanted.channels:
        raise ConfigError(
            "the network takes another number of channels than the volumes have",
            where="model.in_channels, data.window",
            found=f"{setting.channels} and {wanted.channels}",
            valid="one channel for each window of data.window, and one without",
            fix=f"set model.in_channels={wanted.channels}",
        )
    usual = AugmentConfig()
    if (setting.augment.mean, setting.augment.std) != (usual.mean, usual.std):
        raise ConfigError(
            "volumes are not normalised by augment.mean and augment.std",
            where="augment.mean, augment.std",
            found=f"{list(setting.augment.mean)}, {list(setting.augment.std)}",
            valid="the defaults: a window says which values become -1 and 1",
            fix="leave them out",
        )
