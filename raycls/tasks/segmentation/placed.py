"""The answer for one file, on the grid of the file: what `raycls predict` writes as a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raycls.data.masks.back import moves_of, undone
from raycls.tasks.base import Setting

__all__ = ["placed"]


def placed(
    maps: np.ndarray, sizes: Sequence[int], spacing: Sequence[float] | None, setting: Setting
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest class of each pixel or voxel of a file of these `sizes`, `int64`, and where the network saw it,
    `bool`. `maps` `[C, ...] float32` is what the network says on its own grid; `spacing` is that of a volume, in mm.

    Where nothing was resized or resampled these are the classes that an evaluation counts.
    """
    plane = len(sizes) == 2
    sizes, maps = ((1, *sizes), maps[:, None]) if plane else (sizes, maps)
    wanted = setting.volumes.spacing
    resampled = None if spacing is None or wanted is None else (spacing, wanted)
    moves = moves_of(setting.augment.eval, sizes, volumes=not plane, image_size=setting.image_size, spacing=resampled)
    values, inside = undone(maps, moves)
    labels = values.argmax(0)
    return (labels[0], inside[0]) if plane else (labels, inside)
