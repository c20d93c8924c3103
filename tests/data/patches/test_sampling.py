"""Patches: where they lie, what is in their middle, and that each hangs on its own numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from raycls.config.sections.data import PatchConfig
from raycls.data.patches.sampling import Places, patches_of

_RANGES = [(0.0, 100.0)]


def _volume(shape: tuple[int, ...] = (12, 16, 20)) -> tuple[np.ndarray, np.ndarray]:
    """Every voxel has another value; a large class 2 and one voxel of class 3, in a corner."""
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    codes = np.ones(shape, np.uint8)
    codes[2:8, 2:8, 2:8], codes[-1, -1, -1] = 2, 3
    codes[0] = 0
    return voxels, codes


def test_a_patch_of_the_foreground_has_a_voxel_of_a_class_in_its_middle() -> None:
    _, codes = _volume()
    places, size = Places(codes, (4, 4, 4), 1.0), np.array([4, 4, 4])
    free = np.array(codes.shape) - size
    found: list[int] = []
    for number in range(400):
        corner = np.array(places.corner((0, 3, 7), number))
        assert (corner >= 0).all() and (corner <= free).all()
        if (corner == free).all():
            found.append(3)
            continue
        middle = tuple(corner + 2)
        clipped = ((corner == 0) | (corner == free)).any()
        assert clipped or codes[middle] == 2
        found.append(2)
    # Each class is as likely, however many voxels it has: 200 of 400, and 4.5 deviations of sqrt(100) around.
    assert abs(found.count(3) - 200) < 45


def test_every_voxel_of_a_class_is_as_likely() -> None:
    codes = np.ones((6, 6, 6), np.uint8)
    codes[1, 2, 3], codes[4, 5, 1] = 2, 2
    places = Places(codes, (1, 1, 1), 1.0)
    corners = [places.corner((0, 0, 0), number) for number in range(400)]
    assert set(corners) == {(1, 2, 3), (4, 5, 1)} and abs(corners.count((1, 2, 3)) - 200) < 45


def test_other_patches_lie_anywhere_and_so_do_all_of_a_volume_without_foreground() -> None:
    shape = (5, 6, 7)
    for codes, foreground in ((np.ones(shape, np.uint8), 1.0), (_volume((12, 16, 20))[1][:5, :6, :7], 0.0)):
        places = Places(codes, (4, 4, 4), foreground)
        corners = {places.corner((1, epoch, 0), 0) for epoch in range(500)}
        assert corners == {(a, b, c) for a in range(2) for b in range(3) for c in range(4)}


def test_the_share_of_the_foreground_is_the_one_that_was_asked_for() -> None:
    codes = np.ones((9, 64, 64), np.uint8)
    codes[8, 63, 63] = 2
    places = Places(codes, (1, 1, 1), 0.25)
    hits = sum(places.corner((0, 0, sample), 0) == (8, 63, 63) for sample in range(1600))
    assert abs(hits - 400) < 78  # 4.5 deviations of sqrt(1600 * 0.25 * 0.75)


def test_patches_hang_on_seed_epoch_sample_and_number_alone() -> None:
    voxels, codes = _volume()
    config = PatchConfig(size=(4, 4, 4), per_volume=3)
    first = list(patches_of(voxels, codes, _RANGES, config, (5, 2, 9)))
    again = list(patches_of(voxels, codes, _RANGES, config.model_copy(update={"per_volume": 2}), (5, 2, 9)))
    for one, other in zip(first, again, strict=False):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1]) and one[2] == other[2]
    keys = {own for sample in ((5, 2, 9), (6, 2, 9), (5, 3, 9), (5, 2, 8)) for *_, own in _of(config, sample)}
    corners = {Places(codes, (4, 4, 4), 0.0).corner((5, epoch, 9), number) for epoch in range(4) for number in range(4)}
    assert len(keys) == 12 and len(corners) > 12


def _of(config: PatchConfig, sample: tuple[int, int, int]) -> list[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]]:
    return list(patches_of(*_volume(), _RANGES, config, sample))


def test_a_patch_has_the_voxels_of_the_volume_and_of_its_mask() -> None:
    voxels, codes = _volume()
    ranges = [(0.0, float(voxels.size)), (100.0, 200.0)]
    for part, mask, _ in patches_of(voxels, codes, ranges, PatchConfig(size=(4, 6, 8), per_volume=5), (0, 0, 0)):
        value = np.round(part[0] * voxels.size).astype(int)
        place = np.unravel_index(int(value.flat[0]), voxels.shape)
        inside = tuple(slice(at, at + side) for at, side in zip(place, (4, 6, 8), strict=True))
        assert np.array_equal(value, voxels[inside]) and np.array_equal(mask, codes[inside])
        assert np.allclose(part[1], ((voxels[inside] - 100) / 100).clip(0, 1))


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_a_smaller_volume_lies_in_the_middle_and_what_is_beside_it_is_black_and_ignored(foreground: float) -> None:
    voxels, codes = np.full((2, 5, 8), 50, np.float32), np.full((2, 5, 8), 2, np.uint8)
    config = PatchConfig(size=(5, 4, 8), per_volume=1, foreground=foreground)
    ((part, mask, _),) = patches_of(voxels, codes, _RANGES, config, (0, 0, 0))
    assert part.shape == (1, 5, 4, 8) and mask.shape == (5, 4, 8)
    assert mask[:, 0, 0].tolist() == [0, 2, 2, 0, 0] and part[0, :, 0, 0].tolist() == [0, 0.5, 0.5, 0, 0]
