"""Confusion: the matrix and its worst cells by hand, and the picture of many classes pixel by pixel."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from raycls.report.page.confusion import confusion


def test_a_small_matrix_is_shown_with_its_numbers() -> None:
    found = confusion(np.array([[3, 1], [0, 4]]), ["cat", "dog"])
    assert [row["name"] for row in found.rows] == ["cat", "dog"]
    assert found.rows[0]["cells"] == [
        {"count": 3, "part": 0.75, "hit": True},
        {"count": 1, "part": 0.25, "hit": False},
    ]
    assert found.picture == ""
    assert found.pairs == [{"truth": "cat", "predicted": "dog", "count": 1, "part": 0.25}]
    assert (found.errors, found.left_out) == (1, 0)


def test_the_worst_pairs_come_first_and_a_class_without_images_divides_nothing() -> None:
    found = confusion(np.array([[0, 2, 5], [0, 0, 0], [3, 0, 9]]), ["a", "b", "c"])
    assert [(pair["truth"], pair["predicted"], pair["count"]) for pair in found.pairs] == [
        ("a", "c", 5),
        ("c", "a", 3),
        ("a", "b", 2),
    ]
    assert found.pairs[1]["part"] == 0.25


def test_no_error_gives_no_pair() -> None:
    assert confusion(np.diag([3, 4]), ["a", "b"]).pairs == []


def test_many_classes_are_a_picture_in_which_several_share_a_cell() -> None:
    size = 260  # three classes to a cell of at most 125
    matrix = np.diag(np.full(size, 3))
    matrix[0, 259] = 9  # of the first three classes 9 of 18 images are taken for the last ones
    found = confusion(matrix, [str(index) for index in range(size)])
    assert (found.rows, found.together, found.left_out) == ([], 3, 0)
    image = Image.open(io.BytesIO(base64.b64decode(found.picture.removeprefix("data:image/png;base64,"))))
    alpha = np.asarray(image)[..., 3]
    assert alpha.shape == (87, 87)
    assert alpha[0, 86] == alpha[0, 0] == round(255 * 0.5**0.5)
    assert alpha[1, 1] == alpha[86, 86] == 255
    assert np.count_nonzero(alpha) == 88


@pytest.mark.parametrize("size", [1, 20, 21])
def test_any_number_of_classes(size: int) -> None:
    found = confusion(np.eye(size, dtype=int), [str(index) for index in range(size)])
    assert bool(found.rows) == (size <= 20)
    assert bool(found.picture) == (size > 20)
