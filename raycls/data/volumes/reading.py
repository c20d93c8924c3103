"""A sample of a split as a volume: read, resampled to `data.spacing`, and its windows as channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.config.sections.data import Window
from raycls.data.source import Split
from raycls.data.volumes.geometry import resampled
from raycls.data.volumes.windows import channels_of
from raycls.errors import DataError

__all__ = ["AS_READ", "Wanted", "made_of", "middle_slice", "values_of", "volume_of", "voxels_of"]

_MOST = 8
"""Times `data.max_pixels`: the voxels that resampling makes at most."""


@dataclass(frozen=True)
class Wanted:
    """What of the config a volume is made by."""

    window: tuple[Window, ...] = ()
    """`data.window`."""
    spacing: tuple[float, float, float] | None = None
    """`data.spacing`."""

    @property
    def channels(self) -> int:
        """Channels of a volume."""
        return max(1, len(self.window))


AS_READ = Wanted()
"""No window and no other spacing."""


def volume_of(split: Split, index: int, wanted: Wanted) -> np.ndarray:
    """The sample as `[C, D, H, W] float32` in 0..1. DataError names the file, the reason and the remedy."""
    return made_of(split, index, voxels_of(split, index), wanted)


def voxels_of(split: Split, index: int) -> np.ndarray:
    """What the source has of the sample, `[D, H, W] float32`. DataError as of `volume_of`."""
    with _left_out(split, index):
        return _read(split, index)


def values_of(split: Split, index: int, wanted: Wanted) -> np.ndarray:
    """The sample as `[D, H, W] float32` in the units of its file, before its windows. DataError as `volume_of`."""
    with _left_out(split, index):
        return _at_spacing(split, index, _read(split, index), wanted.spacing)


def made_of(split: Split, index: int, voxels: np.ndarray, wanted: Wanted) -> np.ndarray:
    """`volume_of` the voxels that were read."""
    with _left_out(split, index):
        return channels_of(_at_spacing(split, index, voxels, wanted.spacing), wanted.window)


@contextmanager
def _left_out(split: Split, index: int) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        remedy = split.without(index)
        error.fix = f"{error.fix}; {remedy}" if error.fix else remedy
        raise


def middle_slice(volume: np.ndarray) -> np.ndarray:
    """How a volume `[C, D, H, W] float32` in 0..1 is shown: the middle slice of its first window, `[H, W, 3] uint8`."""
    levels = np.round(volume[0, volume.shape[1] // 2] * 255).clip(0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def _read(split: Split, index: int) -> np.ndarray:
    data = split.reader.read(index)
    if not isinstance(data, np.ndarray) or data.ndim != 3 or data.dtype.kind not in "iuf" or 0 in data.shape:
        raise DataError(
            "a source did not return a volume",
            where=split.locate(index),
            found=f"{data.dtype} of shape {list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__,
            valid="numbers of shape [D, H, W], as of the sources dicom and nifti",
        )
    return data.astype(np.float32, copy=False)


def _at_spacing(split: Split, index: int, voxels: np.ndarray, wanted: Sequence[float] | None) -> np.ndarray:
    if wanted is None:
        return voxels
    spacing: Any = getattr(split.reader, "spacing", None)
    if spacing is None:
        raise DataError(
            "the spacing of a volume is not known, so it cannot be resampled",
            where=split.locate(index),
            found="a source whose reader has no method spacing",
            fix="set data.spacing=null",
        )
    own = spacing(index)
    sizes = [size * have / want for size, have, want in zip(voxels.shape, own, wanted, strict=True)]
    if np.prod(sizes) > _MOST * split.max_pixels:
        raise DataError(
            "data.spacing would make a volume larger than allowed",
            where=split.locate(index),
            found=f"{' x '.join(f'{size:.0f}' for size in sizes)} voxels, of {list(voxels.shape)} with a spacing of "
            + " x ".join(f"{each:.4g}" for each in own),
            valid=f"at most {_MOST} times data.max_pixels, {_MOST * split.max_pixels / 1e6:g} million voxels",
            fix="choose a larger spacing, or raise data.max_pixels where there is the memory",
        )
    return resampled(voxels, own, wanted)
