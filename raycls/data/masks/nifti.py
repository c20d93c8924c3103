"""NIfTI masks: each must lie where its volume lies."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from raycls.data.volumes.nifti import directions_of, place_of
from raycls.data.volumes.readers import Volumes
from raycls.errors import DataError
from raycls.progress import counted

__all__ = ["volumes_of"]

_SAME = 1e-3
"""Positions and steps in mm that differ by less are equal: files round the same geometry in two ways."""


def volumes_of(root: str, images: Sequence[str], masks: Sequence[str]) -> tuple[Volumes, Volumes]:
    """The readers of volumes and of their masks, both of files below `root`, whose headers alone are read. DataError
    names a mask whose size, orientation, spacing or place is not that of its volume."""
    directions: list[np.ndarray] = []
    pairs = list(zip(images, masks, strict=True))
    for image, mask in counted(pairs, "reading headers", len(pairs)):
        paths = os.path.join(root, image), os.path.join(root, mask)
        found = [(directions_of(path), *place_of(path)) for path in paths]
        (steps, size, origin), (other, its_size, its_origin) = found
        if size != its_size:
            raise _differs(paths, "size", list(its_size), list(size))
        if not np.allclose(steps, other, rtol=0, atol=_SAME):
            raise _differs(paths, "orientation or spacing", np.round(other, 4).tolist(), np.round(steps, 4).tolist())
        if not np.allclose(origin, its_origin, rtol=0, atol=_SAME):
            raise _differs(paths, "place", np.round(its_origin, 4).tolist(), np.round(origin, 4).tolist())
        directions.append(steps)
    stacked = np.stack(directions)
    readers = [Volumes.of("nifti", root, [(name,) for name in names], stacked) for names in (images, masks)]
    return readers[0], readers[1]


def _differs(paths: tuple[str, str], what: str, found: object, wanted: object) -> DataError:
    return DataError(
        f"a mask has another {what} than its volume",
        where=paths[1],
        found=str(found),
        valid=f"{wanted}, as {paths[0]}",
        fix="resample the mask to its volume, and write it with the affine of the volume",
    )
