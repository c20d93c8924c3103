"""Confident learning on numbers that are worked out by hand."""

from __future__ import annotations

import numpy as np

from raycls.session.checking.confident import Suspect, suspects

PROBABILITIES = np.array(
    [
        [0.9, 0.1, 0.0],  # a
        [0.7, 0.2, 0.1],  # a
        [0.2, 0.8, 0.0],  # a, which it says is b: the mean of b over images labelled b is 0.6
        [0.3, 0.6, 0.1],  # b
        [0.4, 0.6, 0.0],  # b
        [0.0, 0.4, 0.6],  # c
        [0.5, 0.1, 0.4],  # c, rather a, but not as surely as 0.6, the mean of a
        [np.nan, np.nan, np.nan],  # not predicted
        [0.9, 0.1, 0.0],  # of a class that the network does not know
    ]
)
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 0, -1])


def test_a_label_is_contradicted_where_another_class_reaches_its_mean() -> None:
    assert suspects(PROBABILITIES, LABELS, 0) == [Suspect(2, 1, 0.2, 0.8, contradicted=True)]


def test_those_that_are_least_sure_come_next() -> None:
    found = suspects(PROBABILITIES, LABELS, 3)
    assert [(each.image, each.suggested, each.contradicted) for each in found] == [
        (2, 1, True),
        (6, 0, False),
        (4, 0, False),
    ]
    assert len(suspects(PROBABILITIES, LABELS, 100)) == 7


def test_a_class_without_an_image_is_never_confident() -> None:
    found = suspects(np.array([[0.1, 0.0, 0.9], [0.2, 0.8, 0.0]]), np.array([0, 1]), 0)
    assert found == []
