"""Tasks without a config file, and what they make of samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.task import LossConfig, TaskConfig
from raycls.tasks.base import Setting
from raycls.tasks.build import Arrays
from raycls.tasks.classification import Classification


def setting(**options: Any) -> Setting:
    """What a run of two classes on the CPU knows, but for `options`; `mean`, `std` and `label_smoothing` go where they
    belong."""
    augment = {name: options.pop(name) for name in ("mean", "std", "train", "eval", "batch") if name in options}
    loss = {name: options.pop(name) for name in ("label_smoothing",) if name in options}
    made = Setting(
        seed=0,
        classes=("a", "b"),
        image_size=8,
        max_pixels=50_000_000,
        augment=AugmentConfig(**augment),
        loss=LossConfig(args=loss),
        channels_last=True,
        device=torch.device("cpu"),
    )
    return replace(made, **options)


def classification(**options: Any) -> Classification:
    """The task with `setting`."""
    return Classification(setting(**options))


def arrays(train: tuple[Any, ...] = (), evaluate: tuple[Any, ...] = (), **options: Any) -> Arrays:
    """What makes samples of the task classification, with these operations."""
    return Arrays(TaskConfig(), setting(train=train, eval=evaluate, device=None, **options))
