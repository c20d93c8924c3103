"""The grey value of RGB images, to the level what Pillow's `convert("L")` gives."""

from __future__ import annotations

import torch
from torch import Tensor

from raycls.config.sections.data import LUMA

__all__ = ["as_rgb", "grey"]


def grey(images: Tensor) -> Tensor:
    """`[B, 3, H, W] float32` of levels 0..255 -> `[B, 1, H, W]` of whole levels: ITU-R 601-2 luma.

    Every sum on the way is an integer below 2^24, which float32 holds exactly: no device and no order rounds otherwise.
    """
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (((images * weights).sum(1, keepdim=True) + sum(LUMA) / 2) / sum(LUMA)).floor()


def as_rgb(levels: Tensor) -> Tensor:
    """`[B, C, H, W]` -> `[B, H, W, 3]` for people, as `raycls.data.images.planes.for_people` shows one image."""
    shown = levels.permute(0, 2, 3, 1)
    return shown[..., : 3 if shown.shape[3] >= 3 else 1].expand(-1, -1, -1, 3)
