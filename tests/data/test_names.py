"""Names that read the same, what stands for a split, and the order of classes."""

from __future__ import annotations

import numpy as np
import pytest

from raycls.data.names import arrange, in_order, integers, shared_splits, split_of
from raycls.errors import DataError


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Train TRAINING trainset train_set train-data training_images TrainSet images.train trn", "train"),
        ("val VALID validation validate dev devset dev_set eval Evaluation valImages val_split", "val"),
        ("test Testing TEST_SET hold-out holdout_data imgs_test testData tst", "test"),
        ("fold1 2019 a data images set test_tube train_val best latest contest device trained evaluator tests1", None),
    ],
)
def test_what_stands_for_a_split(names: str, split: str | None) -> None:
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


def test_what_all_names_share_is_left_out() -> None:
    assert shared_splits(["seg_train", "seg_test"]) == {"seg_train": "train", "seg_test": "test"}
    assert shared_splits(["val2017", "train2017"]) == {"val2017": "val", "train2017": "train"}
    assert shared_splits(["train_a_x", "dev_a_x"]) == {"train_a_x": "train", "dev_a_x": "val"}
    assert shared_splits(["seg_train", "seg_pred"]) is None
    assert shared_splits(["fold1", "fold2"]) is None


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "0", "1", "11"], ["0", "1", "2", "10", "11"]),
        (["1", "-1", "+1", "01", "-10", "0"], ["-10", "-1", "0", "+1", "01", "1"]),  # ties by text: + 0 1
        (["10", "2", "a"], ["10", "2", "a"]),
        (["10", "9.5"], ["10", "9.5"]),
        (["99999999999999999999", "100000000000000000000"], ["99999999999999999999", "100000000000000000000"]),
        (["b", "B", "a"], ["B", "a", "b"]),
    ],
)
def test_integers_are_in_the_order_of_their_values(names: list[str], order: list[str]) -> None:
    assert in_order(names) == order


def test_labels_follow_the_order() -> None:
    classes, labels, notes = arrange(["10", "9", "1"], np.array([0, 1, 2, 0]), ordered=False)
    assert (classes, labels.tolist(), notes) == (("1", "9", "10"), [2, 1, 0, 2], ())
    classes, labels, _ = arrange(["10", "9", "1"], np.array([0, 1, 2, 0]), ordered=True)
    assert (classes, labels.tolist()) == (("10", "9", "1"), [0, 1, 2, 0])


def test_names_that_read_the_same_are_one_class() -> None:
    classes, labels, notes = arrange(["cafe\u0301", "b ", "caf\xe9", "a"], np.array([0, 1, 2, 3]), ordered=False)
    assert classes == ("a", "b", "caf\xe9")
    assert labels.tolist() == [2, 1, 2, 0]
    assert len(notes) == 1
    assert r"'cafe\u0301' and 'caf\xe9'" in notes[0]
    with pytest.raises(DataError, match="read the same"):
        arrange(["cafe\u0301", "caf\xe9"], np.array([0, 1]), ordered=True)


def test_integers_that_were_written_as_floats() -> None:
    assert integers(["1.0", "2", "10.00", "-3."]) == {"1.0": "1", "2": "2", "10.00": "10", "-3.": "-3"}
    assert integers(["1", "2"]) == {}
    assert integers(["1.0", "1.5"]) == {}
    assert integers(["1.0", "x"]) == {}
    assert integers(["1e3", "2.0"]) == {}
