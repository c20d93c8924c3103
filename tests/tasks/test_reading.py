"""How logits are read, as one class or as several: probabilities, scores, agreement and divergence by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raycls.session.scoring.views import Averaged
from raycls.session.trained.answers import answers
from raycls.tasks.reading import ONE, SEVERAL, Reading

LOGITS = np.array([[2.0, -1.0, 0.0], [-3.0, 0.5, 4.0]], np.float32)


@pytest.mark.parametrize(("reading", "theirs"), [(ONE, lambda x: x.softmax(1)), (SEVERAL, torch.sigmoid)])
def test_probabilities_are_those_of_torch(reading: Reading, theirs: object) -> None:
    given = torch.from_numpy(LOGITS)
    assert callable(theirs)
    np.testing.assert_allclose(reading.probabilities(LOGITS), theirs(given.double()).numpy(), rtol=1e-14)
    assert torch.equal(reading.of_tensor(given), theirs(given))
    broken = np.vstack([LOGITS, [[np.nan, 0, 0], [np.inf, 0, 0]]])
    assert np.isnan(reading.probabilities(broken)).tolist() == [[False] * 3] * 2 + [[True] * 3] * 2


def test_scores() -> None:
    assert ONE.scored(LOGITS, np.array([0, 1])) == 0.5
    # of the first class the second image, which is ranked last: 1/2; of the third one the first: 1/2; of the second 1
    truth = np.array([[False, False, True], [True, True, False]])
    assert SEVERAL.scored(LOGITS, truth) == pytest.approx((0.5 + 1 + 0.5) / 3)


def test_agreement_of_label_sets() -> None:
    first = np.array([[0.6, 0.2], [0.6, 0.2], [0.4, 0.5], [0.6, 0.2]])
    second = np.array([[0.55, 0.4], [0.45, 0.2], [0.4, 0.4999999], [np.nan, 0.2]])
    assert SEVERAL.same(first, second, None).tolist() == [True, False, True, False]  # the third one is a tie
    assert SEVERAL.same(first, second, np.array([0.5, 0.3])).tolist() == [False, False, True, False]
    assert ONE.same(first, second, None).tolist()[:3] == [True, True, True]


def test_divergence() -> None:
    first, second = np.array([[0.5, 0.9]]), np.array([[0.25, 0.9]])
    assert ONE.divergence(first, second) == pytest.approx(0.5 * math.log(2))
    assert SEVERAL.divergence(first, second) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))


def test_answers_of_several_classes() -> None:
    given = np.vstack([LOGITS, [[np.nan, 9, 9]]]).astype(np.float32)
    found = answers(given, 2, thresholds=np.array([0.5, 0.7, 0.5]))
    assert found.labels is not None
    assert found.labels.tolist() == [[True, False, True], [False, False, True], [False] * 3]
    assert found.classes[:2].tolist() == [[0, 2], [2, 1]]
    assert found.top[0].tolist() == [found.probabilities[0, 0], 0.5]
    assert found.valid.tolist() == [True, True, False]
    assert np.isnan(found.probabilities[2]).all()


class _FirstPixel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], -images[:, 0, 0, 0]], 1)


def test_views_average_the_probabilities_of_each_class() -> None:
    images = torch.tensor([[[[3.0, -1.0]]]])
    logits = Averaged(_FirstPixel(), "mirror", SEVERAL)(images)
    wanted = torch.stack([torch.tensor([3.0, -3.0]), torch.tensor([-1.0, 1.0])]).double().sigmoid().mean(0)
    assert torch.allclose(logits.sigmoid()[0], wanted, rtol=1e-14)
    softmax = Averaged(_FirstPixel(), "mirror", ONE)(images).softmax(1)[0]
    assert torch.allclose(softmax[0], (torch.tensor([6.0, -2.0]).double().sigmoid().mean()), rtol=1e-14)
