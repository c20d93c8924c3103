"""Where the patches of a volume are cut: arithmetic on (seed, epoch, sample, patch), and the voxels of the mask.

As nnU-Net (Isensee et al. 2021) draws them: some patches have a voxel of a foreground class in their middle, of a class
that is drawn first, so that a small lesion is seen as often as a large organ; the others lie anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from raycls.config.sections.data import PatchConfig
from raycls.data.order import key
from raycls.data.volumes.windows import scaled

__all__ = ["Places", "patches_of"]

_PATCH = 0x7061746368
"""Sets the hashes of patches apart from those of operations; any number would do."""
_WHOLE = 2.0**64
_FIRST = 2
"""The code of the first class of the foreground: 0 is ignored, 1 the background."""


def patches_of(
    voxels: np.ndarray,
    codes: np.ndarray,
    ranges: Sequence[tuple[float, float]],
    config: PatchConfig,
    sample: tuple[int, int, int],
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]]:
    """The patches of a volume `voxels` `[D, H, W] float32` with the mask `codes` `[D, H, W] uint8` (0: ignored, 1:
    background, 2 and more: the other classes): `[C, *size] float32`, scaled as `windows.scaled`, the codes `[*size]`,
    and the key of its augmentation. Beside a smaller volume they are black and ignored.

    `sample` is (seed, epoch, id); the bits hang on it, and on nothing that was drawn before.
    """
    size = config.size if isinstance(config.size, tuple) else voxels.shape
    places = Places(codes, size, config.foreground)
    for number in range(config.per_volume):
        corner = places.corner(sample, number)
        inside = tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True))
        own = key(_PATCH, sample[0], number) >> 1, *sample[1:]
        lacking = [side - have for side, have in zip(size, codes[inside].shape, strict=True)]
        beside = [(more // 2, more - more // 2) for more in lacking]
        yield np.pad(scaled(voxels[inside], ranges), [(0, 0), *beside]), np.pad(codes[inside], beside), own


class Places:
    """Where the patches of the volume of a mask are cut."""

    def __init__(self, codes: np.ndarray, size: Sequence[int], foreground: float) -> None:
        self._codes, self._size, self._foreground = codes, size, foreground
        # By slices: numpy counts in 64-bit integers, which of a whole volume are eight times as large as it is.
        self._counts = np.stack([np.bincount(part.ravel(), minlength=256) for part in codes])

    def corner(self, sample: tuple[int, int, int], number: int) -> tuple[int, int, int]:
        """The first voxel of patch `number` of the sample (seed, epoch, id); 0 along a side that is no longer than the
        patch."""
        seed, epoch, index = sample
        chance, *draws = (key(_PATCH, seed, epoch, index, number, draw) for draw in range(4))
        free = [max(0, have - want) for have, want in zip(self._codes.shape, self._size, strict=True)]
        middle = self._voxel(*draws[:2]) if chance / _WHOLE < self._foreground else None
        if middle is None:
            first, second, third = (draw % (room + 1) for draw, room in zip(draws, free, strict=True))
        else:
            first, second, third = (
                min(max(0, at - want // 2), room) for at, want, room in zip(middle, self._size, free, strict=True)
            )
        return first, second, third

    def _voxel(self, label: int, place: int) -> tuple[int, int, int] | None:
        """A voxel of a class of the foreground, as two random numbers have it; None where there is no such class."""
        present = np.flatnonzero(self._counts.sum(0)[_FIRST:])
        if not len(present):
            return None
        code = int(present[label % len(present)]) + _FIRST
        until = np.cumsum(self._counts[:, code])
        rank = place % int(until[-1])
        depth = int(np.searchsorted(until, rank, side="right"))
        before = int(until[depth - 1]) if depth else 0
        row, column = divmod(int(np.flatnonzero(self._codes[depth] == code)[rank - before]), self._codes.shape[2])
        return depth, row, column
