"""Splits have the exact sizes that fractions ask for, are stratified, and depend on the seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from raycls.config.sections.data import SplitConfig
from raycls.data.label_sets import as_sets
from raycls.data.splits.split import divide
from raycls.errors import DataError


def _config(train: float, val: float, test: float, seed: int = 0) -> SplitConfig:
    return SplitConfig(train=train, val=val, test=test, seed=seed)


def _sizes(splits: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: len(rows) for name, rows in splits.items()}


def test_sizes_are_the_largest_remainders() -> None:
    # 1797 * (0.7, 0.2, 0.1) = 1257.9, 359.4, 179.7: whole parts 1257 + 359 + 179, two more to .9 and .7
    labels = np.arange(1797) % 10
    assert _sizes(divide(labels, None, SplitConfig())) == {"train": 1258, "val": 359, "test": 180}


def test_every_sample_is_in_one_split() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 1003)
    splits = divide(labels, None, SplitConfig())
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(1003))
    assert all(np.all(np.diff(rows) > 0) for rows in splits.values())


def test_equal_classes_are_split_equally() -> None:
    labels = np.repeat(np.arange(5), 100)
    for name, count in (("train", 70), ("val", 20), ("test", 10)):
        assert np.bincount(labels[divide(labels, None, SplitConfig())[name]]).tolist() == [count] * 5


@pytest.mark.parametrize("seed", range(5))
def test_uneven_classes_are_near_their_share(seed: int) -> None:
    counts = np.array([400, 37, 3, 1, 160, 12])
    labels = np.repeat(np.arange(6), counts)
    splits = divide(labels, None, _config(0.6, 0.3, 0.1, seed))
    for name, fraction in (("train", 0.6), ("val", 0.3), ("test", 0.1)):
        have = np.bincount(labels[splits[name]], minlength=6)
        assert np.abs(have - counts * fraction).max() < 2, name
    assert np.bincount(labels[splits["train"]], minlength=6).min() >= 1


def test_few_samples_per_class_still_fill_every_split() -> None:
    """Rounding class by class would leave no test sample at all: 3 per class at 7:2:1."""
    labels = np.repeat(np.arange(100), 3)
    assert _sizes(divide(labels, None, SplitConfig())) == {"train": 210, "val": 60, "test": 30}


def test_every_class_is_trained() -> None:
    labels = np.arange(20)  # one sample each; whatever was given to val and test goes back
    splits = divide(labels, None, SplitConfig())
    assert _sizes(splits) == {"train": 20}


def test_the_seed_decides() -> None:
    labels = np.repeat(np.arange(4), 50)
    first, again, other = (divide(labels, None, _config(0.7, 0.2, 0.1, seed)) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert set(first[name]) != set(other[name])


def test_within_a_class_the_choice_is_random() -> None:
    rows = divide(np.repeat(np.arange(2), 1000), None, SplitConfig())["test"]
    steps = np.diff(rows[rows < 1000])
    assert len(rows) == 200
    assert len(set(steps.tolist())) > 5


def test_an_empty_split_is_not_there() -> None:
    labels = np.repeat(np.arange(2), 50)
    assert _sizes(divide(labels, None, _config(1.0, 0.0, 0.0))) == {"train": 100}
    assert _sizes(divide(labels, None, _config(0.9, 0.1, 0.0))) == {"train": 90, "val": 10}


def test_val_is_carved_out_of_train() -> None:
    labels = np.repeat(np.arange(2), 100)
    given = {"train": np.arange(0, 200, 2), "test": np.arange(1, 200, 2)}
    splits = divide(labels, given, _config(0.6, 0.2, 0.2))
    assert _sizes(splits) == {"train": 75, "val": 25, "test": 100}  # 0.2 / (0.6 + 0.2) of 100
    np.testing.assert_array_equal(np.sort(np.concatenate([splits["train"], splits["val"]])), given["train"])
    assert _sizes(divide(labels, given, _config(0.8, 0.0, 0.2))) == {"train": 100, "test": 100}
    assert _sizes(divide(labels, {"train": np.arange(200)}, _config(0.7, 0.2, 0.1))) == {"train": 156, "val": 44}


def test_the_datas_own_splits_stay() -> None:
    given = {"train": [3, 1], "val": [0], "test": [2]}
    splits = divide(np.zeros(4, dtype=np.int64), given, SplitConfig())
    assert {name: rows.tolist() for name, rows in splits.items()} == {"train": [1, 3], "val": [0], "test": [2]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test": [0, 1]}, "train split is empty"),
        ({"train": [], "test": [0]}, "train split is empty"),
        ({"train": [0, 1], "test": [1]}, "share a sample"),
        ({"train": [0, 0]}, "positions"),
        ({"train": [0, 9]}, "positions"),
        ({"training": [0]}, "unknown split"),
    ],
)
def test_what_is_refused(given: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        divide(np.zeros(3, dtype=np.int64), given, SplitConfig())


def test_no_sample_at_all() -> None:
    with pytest.raises(DataError, match="train split is empty"):
        divide(np.zeros(0, dtype=np.int64), None, SplitConfig())


@pytest.mark.parametrize(("classes", "part"), [(20, 0.3), (200, 0.02)])
def test_samples_of_several_classes_are_split_by_the_fractions_and_every_class_is_trained(
    classes: int, part: float
) -> None:
    """Nearly every sample has a set of classes of its own here."""
    matrix = np.random.RandomState(0).rand(2000, classes) < part
    sets, labels = as_sets(matrix)
    splits = divide(labels, None, _config(0.7, 0.2, 0.1), sets)
    assert _sizes(splits) == {"train": 1400, "val": 400, "test": 200}
    assert sorted(np.concatenate([*splits.values()]).tolist()) == list(range(2000))
    assert (matrix[splits["train"]].any(0) == matrix.any(0)).all()


def test_a_rare_class_among_several_is_trained() -> None:
    matrix = np.zeros((40, 3), bool)
    matrix[:, 0] = True
    for row in range(40):  # whichever sample has the two rare classes, it is trained
        matrix[:, 1:] = False
        matrix[row, 1:] = True
        sets, labels = as_sets(matrix)
        splits = divide(labels, None, _config(0.5, 0.25, 0.25), sets)
        assert row in splits["train"]
        assert sum(map(len, splits.values())) == 40
        assert 19 <= len(splits["train"]) <= 21
