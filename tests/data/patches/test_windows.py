"""Windows that cover a volume."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from raycls.data.patches.windows import corners, gaussian


def test_windows_lie_at_even_distances_from_the_first_voxel_to_the_last() -> None:
    assert corners((10,), (4,), 0.5) == [(0,), (2,), (4,), (6,)]
    assert corners((11,), (4,), 0.25) == [(0,), (2,), (5,), (7,)]  # 7 free voxels in 3 steps of at most 3
    assert corners((4,), (4,), 0.5) == corners((3,), (4,), 0.5) == [(0,)]
    assert corners((4, 6), (4, 3), 0.0) == [(0, 0), (0, 3)]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_every_voxel_is_covered_and_neighbours_overlap_as_asked(overlap: float) -> None:
    for length in range(1, 60):
        for side in (1, 3, 8, 17):
            starts = [start for (start,) in corners((length,), (side,), overlap)]
            covered = np.zeros(max(length, side), int)
            for start in starts:
                assert start + side <= len(covered)
                covered[start : start + side] += 1
            assert covered.all() and starts == sorted(set(starts))
            assert all(after - before <= max(1, side * (1 - overlap)) for before, after in pairwise(starts))


def test_the_weights_are_a_gaussian_of_an_eighth_of_each_side() -> None:
    weights = gaussian((8, 16, 5))
    assert weights.shape == (8, 16, 5) and weights.dtype == np.float32 and (weights > 0).all()
    assert weights[3, 7, 2] == weights[4, 8, 2] == pytest.approx(np.exp(-(0.5**2) / 2 - (0.5 / 2) ** 2 / 2))
    assert weights[3, 7, 4] / weights[3, 7, 2] == pytest.approx(np.exp(-((2 / 0.625) ** 2) / 2))
    assert np.array_equal(weights, weights[::-1, ::-1, ::-1])
