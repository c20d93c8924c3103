"""The head against scikit-learn's logistic regression, and the nearest neighbours against its classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from raycls.session.probing.head import Fitted, Head, Trial, chosen, fit
from raycls.session.probing.neighbours import nearest

_TRAIN = 300


def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Digits as features of scales and means of their own, three of them constant."""
    pixels, labels = load_digits(return_X_y=True)
    draw = np.random.default_rng(0)
    order = draw.permutation(len(pixels))[: _TRAIN + 300]
    scaled = pixels[order] * draw.uniform(0.01, 10, pixels.shape[1]) + draw.normal(0, 5, pixels.shape[1])
    features, classes = torch.tensor(scaled, dtype=torch.float32), torch.tensor(labels[order])
    return (features[:_TRAIN], classes[:_TRAIN]), (features[_TRAIN:], classes[_TRAIN:])


def test_minimum_is_that_of_scikit_learn() -> None:
    train, val = _digits()
    found = fit(train, val, 10, [1e-4, 1e-2, 1.0], 2_000)
    assert [one.trial.weight_decay for one in found] == [1.0, 1e-2, 1e-4]
    plain = train[0].double().numpy()
    spread = plain.std(0)
    spread[spread < 1e-9] = 1
    scaled, other = (plain - plain.mean(0)) / spread, (val[0].double().numpy() - plain.mean(0)) / spread
    for one in found:
        trial = one.trial
        oracle = LogisticRegression(C=1 / (_TRAIN * trial.weight_decay), solver="newton-cholesky", tol=1e-8)
        oracle.fit(scaled, train[1].numpy())
        probabilities = torch.softmax(one.head.logits(val[0]).double(), 1).numpy()
        assert probabilities == pytest.approx(oracle.predict_proba(other), abs=5e-3)
        assert trial.val_top1 == oracle.score(other, val[1].numpy())
        assert trial.val_loss == pytest.approx(log_loss(val[1].numpy(), oracle.predict_proba(other)), abs=1e-3)
        assert trial.loss == pytest.approx(log_loss(train[1].numpy(), oracle.predict_proba(scaled)), abs=1e-4)
        assert trial.converged and 0 < trial.epochs < 2_000


def test_without_a_bias_the_minimum_is_that_without_an_intercept() -> None:
    train, val = _digits()
    (one,) = fit(train, val, 10, [1e-2], 2_000, biased=False)
    plain = train[0].double().numpy()
    spread = plain.std(0)
    spread[spread < 1e-9] = 1
    oracle = LogisticRegression(C=1 / (_TRAIN * 1e-2), solver="newton-cholesky", tol=1e-8, fit_intercept=False)
    oracle.fit(plain / spread, train[1].numpy())
    assert one.head.bias is None
    expected = oracle.predict_proba(val[0].double().numpy() / spread)
    assert torch.softmax(one.head.logits(val[0]).double(), 1).numpy() == pytest.approx(expected, abs=5e-3)


def test_passes_that_are_used_up_are_told() -> None:
    train, val = _digits()
    (one,) = fit(train, val, 10, [1e-6], 5)
    assert 5 <= one.trial.epochs < 30 and not one.trial.converged


def test_one_class_and_one_feature() -> None:
    features, labels = torch.ones(4, 1), torch.zeros(4, dtype=torch.int64)
    (one,) = fit((features, labels), None, 2, [0.1], 100)
    assert one.head.logits(features).argmax(1).tolist() == [0] * 4
    assert np.isnan(one.trial.val_top1)


def test_chosen_on_validation_and_ties_by_its_loss() -> None:
    def one(decay: float, top1: float, loss: float) -> Fitted:
        return Fitted(Head(torch.zeros(1), None), Trial(decay, 1, 1.0, True, 0.0, top1, loss))

    found = [one(1.0, 0.8, 0.1), one(0.1, 0.9, 0.5), one(0.01, 0.9, 0.4), one(0.001, 0.9, 0.4)]
    assert chosen(found).trial.weight_decay == 0.01


def test_neighbours_are_those_of_scikit_learn() -> None:
    train, val = _digits()
    oracle = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distances: np.exp((1 - np.asarray(distances)) / 0.07)
    )
    oracle.fit(train[0].double().numpy(), train[1].numpy())
    found = nearest(train, val[0], 10)
    expected = oracle.predict(val[0].double().numpy())
    assert (found.numpy() == expected).mean() > 0.99  # a vote of two that are as near as float32 tells


def test_near_ones_outvote_many_that_are_far() -> None:
    """Of three neighbours one points the same way, with exp(1 / 0.07) votes; two at 60 degrees have exp(0.5 / 0.07)."""
    bank = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5], [0.5, -(0.75**0.5)]]), torch.tensor([1, 0, 0])
    assert nearest(bank, torch.tensor([[2.0, 0.0]]), 2).tolist() == [1]
    assert nearest(bank, torch.tensor([[0.0, 3.0]]), 2).tolist() == [0]
