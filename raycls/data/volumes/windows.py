"""Windows: the range of values that becomes 0 to 1, and nothing of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raycls.config.sections.data import WINDOWS, Window

__all__ = ["channels_of", "limits_of"]


def limits_of(window: Window) -> tuple[float, float]:
    """The lowest and the highest value of a window, which become 0 and 1."""
    given = WINDOWS[window] if isinstance(window, str) else window
    return given["center"] - given["width"] / 2, given["center"] + given["width"] / 2


def channels_of(voxels: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    """`voxels` `[D, H, W] float32` as `[C, D, H, W] float32` in 0..1, a channel for each window.

    Without a window the one channel goes from the lowest value of the volume to its highest.
    """
    limits = [limits_of(window) for window in windows] or [(float(voxels.min()), float(voxels.max()))]
    return np.stack([_between(voxels, low, high) for low, high in limits])


def _between(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = voxels - np.float32(low)
    scaled *= np.float32(1 / (high - low) if high > low else 0)
    return scaled.clip(0, 1)
