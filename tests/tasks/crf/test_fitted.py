"""A search for the parameters: better than the network alone where noise breaks it, never worse, always the same."""

from __future__ import annotations

import pytest
import torch

from raycls.tasks.crf.dense import Crf, refined
from raycls.tasks.crf.fitted import Case, fitted

_NEAR = Crf(reach=2.5, steps=3)
_TRIED = {"appearance": (0.5, 1.0), "smoothness": (0.0,)}


def _case(seed: int, sides: tuple[int, ...] = (16, 16), noise: float = 1.5) -> Case:
    """A bright ball, and a network whose logits are true by 1 with noise of `noise`."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.meshgrid(*(torch.arange(side) - side / 2 for side in sides), indexing="ij")
    mask = (torch.stack(grid).square().sum(0) < (min(sides) / 3) ** 2).long()
    image = mask * 0.6 + 0.2 + 0.05 * torch.randn(sides, generator=generator)
    logits = torch.stack([0.5 - mask, mask - 0.5]) + noise * torch.randn(2, *sides, generator=generator)
    return Case(logits.softmax(0), image[None], mask)


def _dice(case: Case, crf: Crf) -> float:
    found = refined(case.probabilities, case.image, crf).argmax(0)
    return float(2 * (found * case.mask).sum() / (found.sum() + case.mask.sum()))


def test_what_is_fitted_raises_dice_on_cases_it_has_not_seen() -> None:
    found = fitted([_case(0), _case(1)], tried=_TRIED, start=_NEAR)
    assert found == fitted([_case(0), _case(1)], tried=_TRIED, start=_NEAR)
    assert found.score > found.without + 0.1
    for seed in (2, 3, 4):
        case = _case(seed)
        assert _dice(case, found.crf) > _dice(case, Crf(steps=0)) + 0.1


def test_in_three_dimensions_too() -> None:
    found = fitted([_case(0, (8, 12, 12))], tried={}, start=Crf(reach=1.5, steps=3))
    assert found.score > found.without + 0.1


def test_no_crf_is_better_than_one_that_harms() -> None:
    """A network that is right about single voxels that the image does not show."""
    mask = torch.zeros(12, 12, dtype=torch.long)
    mask[::4, ::4] = 1
    probabilities = torch.stack([0.9 - 0.8 * mask, 0.1 + 0.8 * mask])
    found = fitted([Case(probabilities, torch.zeros(1, 12, 12), mask)], tried={}, start=_NEAR)
    assert (found.score, found.without, found.crf.appearance, found.crf.smoothness) == (1.0, 1.0, 0.0, 0.0)


def test_voxels_that_are_ignored_do_not_count() -> None:
    case = _case(0)
    wrong = case.mask.clone()
    wrong[:12] = 255
    half = Case(case.probabilities, case.image, wrong)
    scores = [fitted([each], tried={}, start=_NEAR).without for each in (half, case)]
    cut = Case(case.probabilities[:, 12:], case.image[:, 12:], case.mask[12:])
    assert scores[0] == fitted([cut], tried={}, start=_NEAR).without != scores[1]


def test_nothing_to_fit_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no cases"):
        fitted([])
