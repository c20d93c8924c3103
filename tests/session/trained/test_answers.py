"""Logits to answers, against torch and by hand."""

from __future__ import annotations

import numpy as np
import torch

from raycls.session.trained.answers import answers, probabilities


def test_probabilities_are_those_of_torch_in_float64() -> None:
    logits = np.random.default_rng(0).normal(0, 8, (50, 7)).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    np.testing.assert_allclose(probabilities(logits), expected, rtol=1e-14)
    warmer = torch.softmax(torch.from_numpy(logits).double() / 2.5, 1).numpy()
    np.testing.assert_allclose(probabilities(logits, temperature=2.5), warmer, rtol=1e-14)


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_array_equal(probabilities(np.array([[1e38, -1e38, 0.0]], np.float32)), [[1.0, 0.0, 0.0]])


def test_equal_logits_are_ordered_as_the_classes_are() -> None:
    found = answers(np.array([[1.0, 3.0, 3.0, 1.0, 3.0]], np.float32), 4)
    assert found.classes.tolist() == [[1, 2, 4, 0]]
    assert found.top[0, 0] == found.top[0, 2] > found.top[0, 3]


def test_classes_whose_probabilities_vanish_keep_the_order_of_their_logits() -> None:
    found = answers(np.array([[-5000.0, -2000.0, 0.0]], np.float32), 3)
    assert found.classes.tolist() == [[2, 1, 0]]
    assert found.top.tolist() == [[1.0, 0.0, 0.0]]


def test_k_is_at_most_the_number_of_classes() -> None:
    found = answers(np.array([[0.0, np.log(3.0)]]), 5)
    assert found.classes.tolist() == [[1, 0]]
    np.testing.assert_allclose(found.top, [[0.75, 0.25]], rtol=1e-15)
    np.testing.assert_allclose(found.probabilities, [[0.25, 0.75]], rtol=1e-15)


def test_logits_that_are_not_finite_give_no_answer() -> None:
    found = answers(np.array([[np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]], np.float32), 2)
    assert found.valid.tolist() == [False, False, True]
    assert np.isnan(found.probabilities[:2]).all()
    assert found.top[2].tolist() == [0.5, 0.5]
