"""Which folders are splits: by their names where these say it, else the user says it, and the remedy works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from raycls.config.load import load_text
from raycls.data.source import Dataset, open_dataset
from raycls.errors import DataError


def _open(root: Path, *overrides: str) -> Dataset:
    return open_dataset(load_text("", "test", [f"data.source.path={root}", *overrides]).run.data)


def _make(root: Path, **folders: int) -> Path:
    """`folder__class` of the keys with so many images each."""
    for name, count in folders.items():
        folder = root.joinpath(*name.split("__"))
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (folder / f"{index}.png").touch()
    return root


def _two(root: Path, first: str, second: str, inner: str = "") -> Path:
    """Two folders of 7 and 2 images of each of the classes a, b, c, as splits have them."""
    for name, count in ((first, 7), (second, 2)):
        _make(root, **{f"{name}__{inner}{label}": count for label in "abc"})
    return root


def _sizes(data: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def _remedies(error: DataError, option: str) -> list[str]:
    """Overrides of `option` in the remedy, as a shell reads them."""
    return [word for word in shlex.split(error.fix or "") if word.startswith(f"{option}=")]


def _refused(root: Path, what: str, *overrides: str) -> DataError:
    with pytest.raises(DataError, match=what) as caught:
        _open(root, *overrides)
    return caught.value


@pytest.mark.parametrize(
    ("first", "second", "split"),
    [
        ("Training", "Testing", "test"),
        ("train", "eval", "val"),
        ("train_set", "test_set", "test"),
        ("TRAIN", "Dev", "val"),
        ("trainImages", "holdout", "test"),
        ("seg_train", "seg_test", "test"),
        ("train2017", "val2017", "val"),
    ],
)
def test_known_names_are_splits_and_it_is_told(tmp_path: Path, first: str, second: str, split: str) -> None:
    data = _open(_two(tmp_path, first, second))
    assert data.classes == ("a", "b", "c")
    assert set(data.own_splits) == {"train", split}
    assert len(data.splits[split]) == 6
    assert [re.search(rf"\b{second}\b.*\b{split}\b", note) is not None for note in data.notes] == [True]


def test_plain_names_need_no_line(tmp_path: Path) -> None:
    assert _open(_two(tmp_path, "train", "val")).notes == ()


@pytest.mark.parametrize(
    ("first", "second"), [("fold1", "fold2"), ("2019", "2020"), ("A", "B"), ("it's 1", "no"), ("train", "unseen")]
)
def test_unknown_names_are_asked_for_and_both_remedies_work(tmp_path: Path, first: str, second: str) -> None:
    root = _two(tmp_path, first, second)
    error = _refused(root, "do not say")
    assert error.found == f"{first}, {second}, which hold a, b, c"
    mapping, none = _remedies(error, "data.source.args.splits")
    data = _open(root, mapping)
    assert data.classes == ("a", "b", "c")
    assert _sizes(data) == {"train": 16, "val": 5, "test": 6}  # 21 * 2/9 of the train split is 4.67
    data = _open(root, none)
    assert data.classes == tuple(sorted((first, second)))
    assert data.own_splits == ()


def test_a_class_that_one_split_lacks(tmp_path: Path) -> None:
    _make(tmp_path, A__a=7, A__b=7, A__c=7, B__a=2, B__b=2)
    error = _refused(tmp_path, "do not say")
    data = _open(tmp_path, _remedies(error, "data.source.args.splits")[0])
    assert (data.classes, len(data.splits["test"])) == (("a", "b", "c"), 4)


def test_folders_without_labels_do_not_hide_the_splits(tmp_path: Path) -> None:
    _make(_two(tmp_path, "fold1", "fold2"), unlabeled=3)
    error = _refused(tmp_path, "do not say")
    mapping = _remedies(error, "data.source.args.splits")[0]
    assert _open(tmp_path, mapping, *_remedies(error, "data.source.args.ignore")).classes == ("a", "b", "c")


def test_classes_with_equal_sub_folders(tmp_path: Path) -> None:
    _make(tmp_path, cat__indoor=4, cat__outdoor=4, dog__indoor__far=4, dog__outdoor=4)
    error = _refused(tmp_path, "do not say")
    mapping, none = _remedies(error, "data.source.args.splits")
    assert _open(tmp_path, mapping).classes == ("indoor", "outdoor")
    assert _open(tmp_path, none).classes == ("cat", "dog")
    for index in range(9):
        _make(tmp_path, **{f"more{index}__indoor": 1})
    (none,) = _remedies(_refused(tmp_path, "do not say"), "data.source.args.splits")
    assert len(_open(tmp_path, none).classes) == 11


def test_classes_with_sub_folders_of_their_own_are_classes(tmp_path: Path) -> None:
    assert _open(_make(tmp_path / "1", cat__wild=4, dog__tame=4)).classes == ("cat", "dog")
    assert _open(_mixed(tmp_path / "2")).classes == ("cat", "dog")
    root = _make(tmp_path / "3", a__x=2, b__x=2, **{f"c{index}": 2 for index in range(5)})
    assert len(_open(root).classes) == 7  # 2 of 7 are divided in the same way


def _mixed(root: Path) -> Path:
    """Class folders with images of their own beside the same sub-folders."""
    _make(root, cat__x=4, dog__x=4)
    for name in ("cat", "dog"):
        (root / name / "own.png").touch()
    return root


def test_splits_below_each_class(tmp_path: Path) -> None:
    _make(tmp_path, cat__train=5, cat__test=5, dog__train=5, dog__test=5)
    error = _refused(tmp_path, "splits of its own")
    (none,) = _remedies(error, "data.source.args.splits")
    assert _sizes(_open(tmp_path, none)) == {"train": 14, "val": 4, "test": 2}


@pytest.mark.parametrize("outer", ["photos", "photos__data set"])
def test_a_folder_around_everything(tmp_path: Path, outer: str) -> None:
    for name, count in (("train", 7), ("test", 2)):
        _make(tmp_path, **{f"{outer}__{name}__{label}": count for label in "ab"})
    (path,) = _remedies(_refused(tmp_path, "single folder"), "data.source.path")
    assert set(_open(tmp_path, path).own_splits) == {"train", "test"}


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("seg_train", "seg_test"), ("Training", "Testing")])
def test_split_folders_that_hold_themselves(tmp_path: Path, first: str, second: str) -> None:
    for name, count in ((first, 7), (second, 2)):
        _make(tmp_path, **{f"{name}__{name}__{label}": count for label in "ab"})
    error = _refused(tmp_path, "one more level")
    data = _open(tmp_path, _remedies(error, "data.source.args.splits")[0])
    assert (data.classes, len(data.splits["test"]), set(data.own_splits)) == (("a", "b"), 4, {"train", "test"})
    (tmp_path / first / "readme.md").touch()
    _refused(tmp_path, "beside", _remedies(error, "data.source.args.splits")[0])


def test_a_train_folder_around_the_splits(tmp_path: Path) -> None:
    for name, count in (("train", 7), ("test", 2)):
        _make(tmp_path, **{f"training_data__{name}__{label}": count for label in "ab"})
    error = _refused(tmp_path, "one more level")
    assert set(_open(tmp_path, _remedies(error, "data.source.args.splits")[0]).own_splits) == {"train", "test"}


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    _make(_two(tmp_path, "train", "val"), valid__a=1, valid__b=1)
    error = _refused(tmp_path, "one split")
    together = _open(tmp_path, _remedies(error, "data.source.args.splits")[0])
    assert _sizes(together) == {"train": 21, "val": 8}
    without = _open(tmp_path, _remedies(error, "data.source.args.ignore")[0])
    assert _sizes(without) == {"train": 21, "val": 6}


def test_a_test_folder_without_labels(tmp_path: Path) -> None:
    _make(tmp_path, train__a=7, train__b=7, test=3)
    error = _refused(tmp_path, "no class folders")
    assert error.where == str(tmp_path / "test")
    assert _sizes(_open(tmp_path, _remedies(error, "data.source.args.ignore")[0])) == {"train": 11, "val": 3}


def test_classes_that_are_named_like_splits(tmp_path: Path) -> None:
    _make(tmp_path, training=7, testing=7)
    (none,) = _remedies(_refused(tmp_path, "no class folders"), "data.source.args.splits")
    assert _open(tmp_path, none).classes == ("testing", "training")
    _make(tmp_path, hiking=7)
    assert _open(tmp_path).classes == ("hiking", "testing", "training")


@pytest.mark.parametrize(
    ("splits", "what", "found"),
    [
        ("{fold1: train, fold3: test}", "do not fit", "no such folder: fold3; without a split: fold2"),
        ("{fold1: train}", "do not fit", "without a split: fold2"),
        ("{fold1: train, fold2: later}", "unknown split", "later"),
        ("{fold1: train, fold2/a: test}", "do not fit", "without a split: fold2/b, fold2/c"),
        ("all", "a mapping or none", "all"),
    ],
)
def test_splits_that_do_not_fit(tmp_path: Path, splits: str, what: str, found: str) -> None:
    error = _refused(_two(tmp_path, "fold1", "fold2"), what, f"data.source.args.splits={splits}")
    assert error.found == found


def test_several_folders_may_be_one_split(tmp_path: Path) -> None:
    _two(_two(tmp_path, "fold1", "fold2"), "fold3", "fold4")
    splits = "{fold1: train, fold2: train, fold3: Training, fold4: dev}"
    assert _sizes(_open(tmp_path, f"data.source.args.splits={splits}")) == {"train": 48, "val": 6}


def test_integers_and_unicode_in_every_folder(tmp_path: Path) -> None:
    numbers = _open(_make(tmp_path / "1", **{str(label): 4 for label in (10, 2, 0, 1, 11)}))
    assert numbers.classes == ("0", "1", "2", "10", "11")
    split = numbers.splits["train"]
    assert {split.key(row).split("/")[0] for row in range(len(split)) if split.labels[row] == 3} == {"10"}
    names = {"train__caf\xe9": 4, "train__x": 4, "val__cafe\u0301": 1, "val__x": 1}
    data = _open(_make(tmp_path / "2", **names))  # keywords would be normalised
    assert data.classes == ("caf\xe9", "x")
    val = data.splits["val"]
    assert [val.key(row) for row in range(2) if val.labels[row] == 0] == ["val/cafe\u0301/0.png"]  # as on the disk


@pytest.mark.parametrize("name", ["test", "Training", "more"])
def test_classes_beside_a_folder_that_holds_them_again(tmp_path: Path, name: str) -> None:
    _make(tmp_path, **dict.fromkeys("abc", 7), **{f"{name}__{label}": 2 for label in "ab"})
    error = _refused(tmp_path, "beside it")
    (leave_out,) = _remedies(error, "data.source.args.ignore")
    assert sum(_sizes(_open(tmp_path, leave_out)).values()) == 21
    as_class = _open(tmp_path, "data.source.args.splits=none")
    assert as_class.classes == tuple(sorted(["a", "b", "c", name]))
    assert sum(_sizes(as_class).values()) == 25


def test_a_class_of_parts_is_no_second_data_set(tmp_path: Path) -> None:
    _make(tmp_path, a=7, b=7, c__left=3, c__right=4)
    assert _open(tmp_path).classes == ("a", "b", "c")


def test_an_empty_split_folder_can_be_left_out(tmp_path: Path) -> None:
    _make(tmp_path, train__a=7, train__b=7)
    (tmp_path / "test").mkdir()
    (leave_out,) = _remedies(_refused(tmp_path, "no class folders"), "data.source.args.ignore")
    assert _open(tmp_path, leave_out).own_splits == ("train",)
