"""Windows: the range of values that becomes 0 to 1, and nothing of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raycls.config.sections.data import WINDOWS, Window

__all__ = ["channels_of", "limits_of", "ranges_of", "scaled"]


def limits_of(window: Window) -> tuple[float, float]:
    """The lowest and the highest value of a window, which become 0 and 1."""
    given = WINDOWS[window] if isinstance(window, str) else window
    return given["center"] - given["width"] / 2, given["center"] + given["width"] / 2


def ranges_of(voxels: np.ndarray, windows: Sequence[Window]) -> list[tuple[float, float]]:
    """The lowest and the highest value of each window; without a window those of the volume `[D, H, W] float32`."""
    return [limits_of(window) for window in windows] or [(float(voxels.min()), float(voxels.max()))]


def channels_of(voxels: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    """`voxels` `[D, H, W] float32` as `[C, D, H, W] float32` in 0..1, a channel for each window."""
    return scaled(voxels, ranges_of(voxels, windows))


def scaled(voxels: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """The same with a channel for each of the `ranges`, which become 0 to 1."""
    found = np.empty((len(ranges), *voxels.shape), np.float32)
    for at, (low, high) in enumerate(ranges):
        channel: np.ndarray = found[at]
        np.subtract(voxels, np.float32(low), out=channel)
        channel *= np.float32(1 / (high - low) if high > low else 0)
        channel.clip(0, 1, out=channel)
    return found
