"""Whether an operation of the config suits no image, rather than one image the operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raycls.data.samples import UnfitError
from raycls.data.slices import augmented
from raycls.data.source import Split
from raycls.errors import DataError

if TYPE_CHECKING:
    from raycls.data.images.operations import Augment

__all__ = ["NEARLY_ALL", "tried"]

NEARLY_ALL = 0.9
"""An operation that fails on this part of the images is at fault, not the images."""
_OTHERS = 3


def tried(split: Split, augment: Augment, index: int, seed: int) -> np.ndarray:
    """The sample at `index`, augmented, `[H, W, 3] uint8`.

    An UnfitError of it says how to leave the sample out only where the same operation suits another sample.
    """
    try:
        return augmented(split, augment, index, (seed, 0, index))
    except UnfitError as error:
        others = np.unique(np.linspace(0, len(split) - 1, _OTHERS + 1).round().astype(int))
        others = others[others != index].tolist()
        if others and all(_fails(split, augment, other, seed, error.entry) for other in others):
            leave_out = f"; {split.without(index)}"
            error.fix = (error.fix or "").removesuffix(leave_out)
            images = "another image fails" if len(others) == 1 else f"{len(others)} other images fail"
            error.found = f"{(error.found or '').removesuffix('.')}; {images} there too"
        raise


def _fails(split: Split, augment: Augment, index: int, seed: int, entry: str) -> bool:
    try:
        augmented(split, augment, index, (seed, 0, index))
    except DataError as error:
        return isinstance(error, UnfitError) and error.entry == entry
    return False
