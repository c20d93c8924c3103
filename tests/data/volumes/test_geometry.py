"""Resampling against torch and by hand; windows by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from raycls.data.volumes.geometry import layout_of, resampled, resized, spacing_of
from raycls.data.volumes.windows import channels_of, limits_of

_RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(7, 9, 16), (5, 7, 8), (12, 8, 9)])
def test_enlarging_is_torchs_trilinear_interpolation(size: tuple[int, int, int]) -> None:
    voxels = _RANDOM.normal(size=(2, 5, 7, 8)).astype(np.float32)
    wanted = F.interpolate(torch.from_numpy(voxels)[None], size, mode="trilinear", align_corners=False)[0].numpy()
    assert np.abs(resized(voxels, size) - wanted).max() < 5e-6


def test_making_it_smaller_is_pillows_triangle() -> None:
    """One slice, so that Pillow's resize of a float image says what it must be."""
    image = _RANDOM.normal(size=(30, 41)).astype(np.float32)
    wanted = np.asarray(Image.fromarray(image).resize((17, 11), Image.Resampling.BILINEAR))
    assert np.abs(resized(image[None], (1, 11, 17))[0] - wanted).max() < 1e-5


def test_the_same_size_is_the_same_array() -> None:
    voxels = _RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
    assert np.array_equal(resized(voxels, (3, 4, 5)), voxels)
    assert np.array_equal(resampled(voxels, (2.0, 1.0, 1.0), (2.0, 1.0, 1.0)), voxels)


def test_a_spacing_twice_as_fine_by_hand() -> None:
    """Six voxels of 1 mm for three of 2 mm: their middles lie a quarter of a voxel beside those of the three."""
    line = np.array([0, 4, 8], np.float32).reshape(1, 1, 3)
    assert resampled(line, (1, 1, 2), (1, 1, 1))[0, 0].tolist() == [0, 1, 3, 5, 7, 8]


def test_a_ramp_stays_a_ramp_at_any_spacing() -> None:
    """Values that are the position in mm are so after resampling, but for the border."""
    ramp = (np.arange(40, dtype=np.float32) * 0.7).reshape(1, 1, 40)
    for spacing, error in ((0.5, 1e-4), (1.1, 0.1)):  # a triangle over whole voxels is a little uneven, as Pillow's is
        made = resampled(ramp, (1, 1, 0.7), (1, 1, spacing))[0, 0]
        assert len(made) == round(40 * 0.7 / spacing)
        assert np.abs(np.diff(made)[2:-2] - spacing).max() < error
        assert abs((made[0] + made[-1]) / 2 - 39 * 0.7 / 2) < 1e-3  # the middle of the volume does not move


def test_axes_that_are_nearest_are_taken_and_their_lengths() -> None:
    directions = np.array([[0.1, 0.0, -2.0], [3.0, 0.1, 0.0], [0.0, -0.5, 0.1]])
    assert layout_of(directions) == ((1, 0, 2), (0, 2))
    assert np.allclose(spacing_of(directions), (0.5099, 3.0017, 2.0025), atol=1e-4)


def test_windows_by_hand() -> None:
    voxels = np.array([[[-1350.0, -600.0, 150.0, 40.0, 80.0, 3000.0]]], np.float32)
    lung, brain = channels_of(voxels, ("lung", {"center": 40.0, "width": 80.0}))
    assert np.allclose(lung[0, 0], [0, 0.5, 1, 1390 / 1500, 1430 / 1500, 1])
    assert brain[0, 0].tolist() == [0, 0, 1, 0.5, 1, 1]
    assert np.allclose(channels_of(voxels, ())[0, 0, 0], (voxels[0, 0] + 1350) / 4350)
    assert channels_of(np.full((1, 1, 2), 7, np.float32), ()).tolist() == [[[[0, 0]]]]
    assert limits_of("soft_tissue") == (-150, 250)
