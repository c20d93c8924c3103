"""Splits that keep groups whole, and folds, against the invariants of scikit-learn's splitters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from raycls.config.load import from_dict, load_text
from raycls.config.sections.data import SplitConfig
from raycls.data.samples import Keys
from raycls.data.source import Dataset, open_dataset
from raycls.data.splits.split import Groups, divide
from raycls.errors import ConfigError, DataError

_ANY = SplitConfig()


def _groups(numbers: np.ndarray) -> Groups:
    return Groups("patient", Keys(map(str, numbers.tolist())), numbers)


def _random(seed: int, samples: int = 600, classes: int = 4, groups: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups, in which a group prefers a class and groups are of very unequal size."""
    random = np.random.default_rng(seed)
    weights = random.pareto(1.5, groups) + 0.2
    numbers = random.choice(groups, samples, p=weights / weights.sum())
    favourite = random.integers(0, classes, groups)
    labels = np.where(random.random(samples) < 0.6, favourite[numbers], random.integers(0, classes, samples))
    return labels.astype(np.int64), numbers.astype(np.int64)


def _imbalance(labels: np.ndarray, parts: list[np.ndarray]) -> float:
    """The largest difference of a class's share between a part and the whole."""
    classes = int(labels.max()) + 1
    whole = np.bincount(labels, minlength=classes) / len(labels)
    return max(np.abs(np.bincount(labels[part], minlength=classes) / len(part) - whole).max() for part in parts)


@pytest.mark.parametrize("seed", range(8))
def test_no_group_is_on_two_sides_and_sizes_and_classes_are_near_their_shares(seed: int) -> None:
    labels, numbers = _random(seed)
    found = divide(labels, None, _ANY, groups=_groups(numbers))
    assert sorted(np.concatenate([*found.values()]).tolist()) == [*range(600)]
    sides = [set(numbers[rows].tolist()) for rows in found.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    largest = np.bincount(numbers).max()
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert abs(len(found[name]) - 600 * share) <= largest
    assert _imbalance(labels, [found["train"]]) < 0.08
    again = divide(labels, None, _ANY, groups=_groups(numbers))
    assert all(np.array_equal(found[name], again[name]) for name in found)
    other = divide(labels, None, SplitConfig(seed=1), groups=_groups(numbers))
    assert not np.array_equal(found["val"], other["val"])


def _folds(labels: np.ndarray, of: int, groups: Groups | None = None, **split: Any) -> list[dict[str, np.ndarray]]:
    config = SplitConfig(**{"train": 0.8, "val": 0.2, "test": 0.0, **split})
    return [divide(labels, None, config, groups=groups, fold=(index, of)) for index in range(of)]


@pytest.mark.parametrize("seed", range(8))
def test_grouped_folds_are_as_balanced_as_those_of_scikit_learn(seed: int) -> None:
    labels, numbers = _random(seed)
    parts = [fold["val"] for fold in _folds(labels, 5, _groups(numbers))]
    assert sorted(np.concatenate(parts).tolist()) == [*range(600)]
    assert sum(len(set(numbers[part].tolist())) for part in parts) == len(set(numbers.tolist()))
    blank = np.zeros(600)
    stratified = [rows for _, rows in StratifiedGroupKFold(5).split(blank, labels, numbers)]
    even = [rows for _, rows in GroupKFold(5).split(blank, labels, numbers)]
    largest = np.bincount(numbers).max()

    def spread(of: list[np.ndarray]) -> int:
        return max(map(len, of)) - min(map(len, of))

    assert spread(parts) <= max(spread(stratified), spread(even), largest)
    assert _imbalance(labels, parts) <= _imbalance(labels, stratified) + 0.05
    assert _imbalance(labels, parts) <= _imbalance(labels, even)


@pytest.mark.parametrize("of", [2, 5, 7])
def test_folds_without_groups_differ_by_one_sample_of_a_class_as_those_of_scikit_learn(of: int) -> None:
    labels, _ = _random(3)
    folds = _folds(labels, of)
    parts = [fold["val"] for fold in folds]
    assert sorted(np.concatenate(parts).tolist()) == [*range(600)]
    for fold in folds:
        assert sorted(np.concatenate([fold["train"], fold["val"]]).tolist()) == [*range(600)]
    counts = np.array([np.bincount(labels[part], minlength=4) for part in parts])
    oracle = [np.bincount(labels[rows], minlength=4) for _, rows in StratifiedKFold(of).split(labels, labels)]
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.array_equal(np.sort(counts, axis=0), np.sort(oracle, axis=0))
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_all_folds_have_one_test_split_and_predefined_splits_stay() -> None:
    labels, numbers = _random(1)
    for groups in (None, _groups(numbers)):
        folds = _folds(labels, 3, groups, train=0.6, val=0.2, test=0.2)
        tests = [fold["test"].tolist() for fold in folds]
        assert tests[0] == tests[1] == tests[2]
        assert sorted(np.concatenate([folds[0]["test"], *(fold["val"] for fold in folds)]).tolist()) == [*range(600)]
    given = {"train": np.arange(500), "test": np.arange(500, 600)}
    found = divide(labels, given, _ANY, fold=(1, 4))
    assert found["test"].tolist() == [*range(500, 600)]
    assert len(found["val"]) == 125
    with pytest.raises(DataError, match="a val split of its own"):
        divide(labels, {**given, "test": [], "val": np.arange(500, 600)}, _ANY, fold=(1, 4))


def test_a_class_of_one_group_is_trained_in_every_fold() -> None:
    labels = np.array([0, 1] * 20 + [2] * 4)
    numbers = np.array([*np.repeat(np.arange(10), 4), *[99] * 4])
    for fold in _folds(labels, 5, _groups(numbers)):
        assert 2 in labels[fold["train"]]
        assert not set(numbers[fold["train"]]) & set(numbers[fold["val"]])
    for fold in _folds(np.array([0, 1] * 10 + [2]), 5):
        assert 20 in fold["train"]


def test_samples_with_any_number_of_classes_are_dealt_by_each_of_them() -> None:
    random = np.random.default_rng(0)
    sets = np.unique(random.random((400, 5)) < 0.3, axis=0)
    labels = random.integers(0, len(sets), 900)
    numbers = random.integers(0, 90, 900)
    found = divide(labels, None, _ANY, sets, _groups(numbers))
    whole = sets[labels].mean(axis=0)
    assert np.abs(sets[labels[found["train"]]].mean(axis=0) - whole).max() < 0.04
    assert not set(numbers[found["train"]]) & set(numbers[found["val"]])


def test_too_few_groups_or_samples_and_folds_that_are_not_there() -> None:
    labels = np.array([0, 1] * 5)
    with pytest.raises(DataError, match="fewer groups than splits") as caught:
        divide(labels, None, _ANY, groups=_groups(labels))
    assert (caught.value.found, caught.value.valid) == ("2 groups", "at least 3")
    with pytest.raises(DataError, match="fewer samples than folds"):
        divide(labels, None, SplitConfig(train=0.8, val=0.2, test=0), fold=(0, 11))
    with pytest.raises(ConfigError, match="index must be less than of"):
        load_text("", "", ["data.fold={index: 3, of: 3}"])


def _manifest(folder: Path, patient: Any, split: Any = lambda at: "") -> Path:
    lines = ["path,label,patient,split"] if split(0) else ["path,label,patient"]
    for at in range(60):
        Image.new("RGB", (2, 2), (at, 0, 0)).save(folder / f"{at}.png")
        lines.append(",".join(str(part) for part in (f"{at}.png", "ab"[at % 2], patient(at), split(at)) if part != ""))
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


def _open(file: Path, **data: Any) -> Dataset:
    source = {"name": "manifest", "path": str(file)}
    return open_dataset(from_dict({"data": {"source": source, "group": "patient", **data}}).data)


def test_the_column_of_a_manifest_is_the_group(tmp_path: Path) -> None:
    found = _open(_manifest(tmp_path, lambda at: f"p{at // 4}"))
    sides = {name: {int(split.key(row)[:-4]) // 4 for row in range(len(split))} for name, split in found.splits.items()}
    assert sides.keys() == {"train", "val", "test"}
    assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == 15
    folds = [_open(tmp_path / "m.csv", fold={"index": index, "of": 3}) for index in range(3)]
    assert len({tuple(fold.splits["test"].keys) for fold in folds}) == 1
    assert sum(len(fold.splits["val"]) for fold in folds) == 60 - len(folds[0].splits["test"])


def test_samples_without_a_group_and_groups_on_two_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 images have no patient"):
        _open(_manifest(tmp_path, lambda at: " " if at in (7, 9) else at))
    file = _manifest(tmp_path, lambda at: f"p{at // 4}", lambda at: "train" if at < 42 else "test")
    with pytest.raises(DataError, match="two splits that the data brought") as caught:
        _open(file)
    assert caught.value.found == "patient p10: train and test"
    whole = _manifest(tmp_path, lambda at: f"p{at // 4}", lambda at: "train" if at < 40 else "test")
    assert set(_open(whole).own_splits) == {"train", "test"}
    with pytest.raises(DataError, match=r"this source has no columns for data\.group"):
        open_dataset(from_dict({"data": {"source": {"name": "digits"}, "group": "patient"}}).data)
