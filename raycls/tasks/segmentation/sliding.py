"""Whole volumes through a network for patches: logits of windows that overlap, averaged voxel by voxel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from raycls.config.sections.train import SlidingWindowConfig
from raycls.data.patches.windows import corners, gaussian

__all__ = ["slid"]

_BLACK = -1.0
"""What a window has beside a volume that is smaller: the lowest value, as training pads its patches."""


def slid(network: Callable[[Tensor], Tensor], volumes: Tensor, windows: SlidingWindowConfig) -> Tensor:
    """Logits `[B, classes, D, H, W] float32` of `volumes` `[B, C, D, H, W]`, by windows.

    Each volume by itself, and its windows in the order of its voxels: what is added up, and in which order, hangs on
    the size of the volume and the options alone.
    """
    found = [_whole(network, volume, windows) for volume in volumes]
    return torch.stack(found) if found[1:] else found[0][None]  # one is not copied: logits are large


def _whole(network: Callable[[Tensor], Tensor], volume: Tensor, windows: SlidingWindowConfig) -> Tensor:
    size = windows.size if isinstance(windows.size, tuple) else tuple(volume.shape[1:])
    lacking = [max(0, side - have) for side, have in zip(size, volume.shape[1:], strict=True)]
    before = [more // 2 for more in lacking]
    padding = [each for first, more in zip(before, lacking, strict=True) for each in (more - first, first)][::-1]
    padded = F.pad(volume, padding, value=_BLACK) if any(lacking) else volume
    places = [
        tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True))
        for corner in corners(padded.shape[1:], size, windows.overlap)
    ]
    inside = tuple(slice(first, first + have) for first, have in zip(before, volume.shape[1:], strict=True))
    if len(places) == 1:
        return network(padded[None])[0][(slice(None), *inside)]
    weights = torch.from_numpy(gaussian(size)) if windows.mode == "gaussian" else torch.ones(size)
    weights = weights.to(volume.device)
    total, weight = volume.new_zeros(0), volume.new_zeros(padded.shape[1:])
    for first in range(0, len(places), windows.batch_size):
        chosen = places[first : first + windows.batch_size]
        found = network(torch.stack([padded[(slice(None), *place)] for place in chosen]))
        total = total if len(total) else found.new_zeros(found.shape[1], *padded.shape[1:])
        for place, logits in zip(chosen, found, strict=True):
            total[(slice(None), *place)] += logits * weights
            weight[place] += weights
    return total.div_(weight)[(slice(None), *inside)]
