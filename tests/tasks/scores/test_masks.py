"""Overlaps and distances of masks: 50 random pairs against scikit-learn and a calculation over all pairs of voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score, jaccard_score

from raycls.tasks.scores.masks import average_surface_distance, hausdorff95, overlap, surface, surface_distances

Masks = tuple[np.ndarray, np.ndarray, tuple[float, ...]]


def _ball(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return (((grid - random.uniform(1, np.array(shape) - 2)) / random.uniform(1, 4, len(shape))) ** 2).sum(-1) < 1


def _pairs() -> list[Masks]:
    """50 pairs in two and three dimensions: noise, balls, single voxels, boxes with equal distances, empty ones."""
    pairs: list[Masks] = []
    for seed in range(50):
        random = np.random.default_rng(seed)
        shape = tuple(random.integers(5, 10, 2 + seed % 2).tolist())
        spacing = tuple(random.choice([0.5, 1.0, 2.5, 3.3], len(shape)).tolist())
        one, other = np.zeros(shape, bool), np.zeros(shape, bool)
        kind = seed % 6
        if kind == 0:
            one, other = random.random(shape) < 0.3, random.random(shape) < 0.3
        elif kind == 1:
            one, other = _ball(shape, random), _ball(shape, random)
        elif kind == 2:
            one[tuple(random.integers(0, shape))] = other[tuple(random.integers(0, shape))] = True
        elif kind == 3:
            one[1:4], other[2:5] = True, True
        elif kind == 4:
            one = _ball(shape, random)
            other[(0,) * len(shape)] = True
        elif seed != 5:
            one = _ball(shape, random)
        pairs.append((one, other, spacing))
    return pairs


_PAIRS = _pairs()


def _edge(mask: np.ndarray) -> np.ndarray:
    """Positions of the surface, voxel by voxel."""
    found = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                near = place.copy()
                near[axis] += step
                if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                    found.append(tuple(place.tolist()))
    return np.array(sorted(set(found)), float).reshape(-1, mask.ndim)


@pytest.mark.parametrize("number", range(len(_PAIRS)))
def test_a_pair_of_masks(number: int) -> None:
    truth, predicted, spacing = _PAIRS[number]
    found = overlap(truth, predicted)
    distances = hausdorff95(truth, predicted, spacing), average_surface_distance(truth, predicted, spacing)
    if not truth.any() and not predicted.any():
        assert all(map(math.isnan, (*found, *distances)))
        return
    assert found.dice == pytest.approx(f1_score(truth.ravel(), predicted.ravel()), abs=1e-12)
    assert found.iou == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()), abs=1e-12)
    if not truth.any() or not predicted.any():
        assert distances == (math.inf, math.inf)
        return
    between = cdist(_edge(truth) * spacing, _edge(predicted) * spacing)
    there, back = between.min(1), between.min(0)
    assert np.sort(surface_distances(truth, predicted, spacing)) == pytest.approx(np.sort(there), abs=1e-9)
    wanted = max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()
    assert distances == pytest.approx(wanted, abs=1e-9)


def test_the_pairs_have_every_kind() -> None:
    empty = [(not one.any()) + (not other.any()) for one, other, _ in _PAIRS]
    assert set(empty) == {0, 1, 2} and {one.ndim for one, _, _ in _PAIRS} == {2, 3}
    assert any(one.sum() == other.sum() == 1 for one, other, _ in _PAIRS)


def test_values_by_hand() -> None:
    """Two bars of three pixels, the second one a pixel to the right: two are common."""
    truth, predicted = np.zeros((1, 6), bool), np.zeros((1, 6), bool)
    truth[0, 1:4], predicted[0, 2:5] = True, True
    assert overlap(truth, predicted) == (4 / 6, 2 / 4)
    assert surface_distances(truth, predicted, (1, 2.0)).tolist() == [2, 0, 0]
    assert hausdorff95(truth, predicted, (1, 2.0)) == pytest.approx(1.8)  # of 0, 0 and 2, at 1.9 of 2 steps
    assert average_surface_distance(truth, predicted, (1, 2.0)) == pytest.approx(4 / 6)


def test_a_mask_over_all_of_the_array_has_a_surface_at_its_border() -> None:
    edge = surface(np.ones((4, 5, 6), bool))
    assert edge.sum() == 4 * 5 * 6 - 2 * 3 * 4 and not edge[1:-1, 1:-1, 1:-1].any()


def test_masks_of_other_kinds_are_refused() -> None:
    mask = np.ones((3, 3), bool)
    for one, other in ((mask, mask[:2]), (mask.astype(int), mask)):
        with pytest.raises(ValueError, match="booleans of one shape"):
            overlap(one, other)
    with pytest.raises(ValueError, match="spacing has 2 numbers"):
        hausdorff95(mask, ~mask, (1.0,))
