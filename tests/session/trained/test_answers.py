"""Logits to answers, against torch and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness.tasks import classification
from torch import nn

from raycls.session.trained.answers import answers
from raycls.tasks.classification import Labelled
from raycls.tasks.reading import ONE
from raycls.tasks.scores.probabilities import Probabilities


def test_probabilities_are_those_of_torch_in_float64() -> None:
    logits = np.random.default_rng(0).normal(0, 8, (50, 7)).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    np.testing.assert_allclose(ONE.probabilities(logits), expected, rtol=1e-14)
    warmer = torch.softmax(torch.from_numpy(logits).double() / 2.5, 1).numpy()
    np.testing.assert_allclose(answers(logits, 1, temperature=2.5).probabilities, warmer, rtol=1e-14)


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_array_equal(ONE.probabilities(np.array([[1e38, -1e38, 0.0]], np.float32)), [[1.0, 0.0, 0.0]])


@pytest.mark.parametrize("size", [2, 5, 6, 13, 400])
def test_of_classes_that_are_tied_the_answer_is_the_one_that_an_evaluation_counts_and_writes(size: int) -> None:
    draw = np.random.default_rng(size)
    logits = draw.integers(0, 3, (200, size)).astype(np.float32)
    labels = draw.integers(0, size, 200)
    task = classification(classes=tuple(f"{index:03}" for index in range(size)))
    counted = task.counts(nn.Identity(), Labelled(torch.from_numpy(logits), torch.from_numpy(labels)))
    written = Probabilities(logits)
    every = [answers(logits, k) for k in (1, 3, 5, 9)]
    expected = np.zeros((size, size), np.int64)
    np.add.at(expected, (labels, every[0].classes[:, 0]), 1)
    assert counted["confusion"].tolist() == expected.tolist()
    assert written.predicted.tolist() == every[0].classes[:, 0].tolist()
    assert counted["top5"] == (every[2].classes == labels[:, None]).any(axis=1).sum()
    for found in every:  # those of fewer are the beginning of those of more
        k = found.classes.shape[1]
        assert found.classes.tolist() == every[-1].classes[:, :k].tolist()
        assert all(len(set(row)) == k for row in found.classes.tolist())
        assert (np.diff(np.take_along_axis(logits, found.classes, axis=1)) <= 0).all()


def test_an_answer_has_the_bits_that_an_evaluation_writes_whatever_it_is_asked_with() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (301, 37)).astype(np.float32)
    for temperature in (1.0, 1.7):
        whole = Probabilities(logits, temperature)
        classes, top = whole.top(slice(0, 301))
        for start, stop in ((0, 301), (0, 1), (3, 67), (300, 301)):
            found = answers(logits[start:stop], 5, temperature=temperature)
            assert found.classes.tolist() == classes[start:stop].tolist()
            assert found.top.tobytes() == top[start:stop].tobytes()
            assert found.probabilities.tobytes() == whole.rows(slice(start, stop)).tobytes()


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
