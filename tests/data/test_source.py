"""A data set as the rest of raycls sees it: sorted classes, splits, pictures, a fingerprint."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness.plugins import user_module
from PIL import Image

from raycls.config.sections.data import DataConfig, SourceConfig, SplitConfig
from raycls.data.source import check_source, open_dataset
from raycls.errors import ConfigError, DataError

PLUGIN = """
import numpy as np
from raycls.data.samples import Samples

class Squares:
    def __init__(self, pixels): self.pixels = pixels
    def read(self, index):
        return {"grey": np.full((4, 5), index, np.uint8), "float": np.zeros((4, 5, 3))}[self.pixels]

def squares(path, *, count, pixels="grey", classes=("b", "a"), labels=None, splits=None):
    labels = [index % 2 for index in range(count)] if labels is None else labels
    return Samples(classes, labels, [f"s{index}" for index in range(count)], Squares(pixels), splits)

def nothing(path): return [1, 2]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    with user_module(tmp_path, "squares_of_test_source", PLUGIN) as name:
        yield name


def _config(name: str, path: Path | None = None, /, **args: object) -> DataConfig:
    return DataConfig(source=SourceConfig(name=name, path=None if path is None else str(path), args=args))


def _folder(root: Path, per_class: int = 10) -> Path:
    for label, name in enumerate(("dog", "cat")):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            Image.new("RGB", (3, 2), (label, index, 0)).save(root / name / f"{index}.png")
    return root


def test_a_folder_end_to_end(tmp_path: Path) -> None:
    data = open_dataset(_config("folder", _folder(tmp_path / "d")))
    assert data.classes == ("cat", "dog")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 14, "val": 4, "test": 2}
    seen = set()
    for name, split in data.splits.items():
        assert split.name == name
        assert split.classes == data.classes
        assert split.labels.dtype == np.int64
        for index in range(len(split)):
            key, image = split.key(index), split.image(index)
            assert data.classes[split.labels[index]] == key.split("/")[0]
            assert image.getpixel((0, 0)) == (int(key.startswith("cat")), int(Path(key).stem), 0)
            assert (image.mode, image.size) == ("RGB", (3, 2))
            seen.add(key)
    assert seen == {f"{name}/{index}.png" for name in ("cat", "dog") for index in range(10)}


def test_a_split_crosses_processes_without_the_others(tmp_path: Path) -> None:
    split = open_dataset(_config("folder", _folder(tmp_path / "d"))).splits["test"]
    data = pickle.dumps(split)
    copy = pickle.loads(data)
    assert [copy.key(index) for index in range(2)] == [split.key(index) for index in range(2)]
    assert copy.image(1).tobytes() == split.image(1).tobytes()
    assert data.count(b".png") == 2


def test_the_fingerprint_knows_names_labels_and_splits_but_not_the_place(tmp_path: Path) -> None:
    first = open_dataset(_config("folder", _folder(tmp_path / "one"))).fingerprint
    assert len(first) == 64
    assert open_dataset(_config("folder", _folder(tmp_path / "two"))).fingerprint == first
    other_seed = DataConfig(source=SourceConfig(path=str(tmp_path / "two")), split=SplitConfig(seed=1))
    assert open_dataset(other_seed).fingerprint != first
    (tmp_path / "two" / "cat" / "3.png").rename(tmp_path / "two" / "cat" / "33.png")
    renamed = open_dataset(_config("folder", tmp_path / "two")).fingerprint
    assert renamed != first
    (tmp_path / "two" / "cat").rename(tmp_path / "two" / "cow")
    assert open_dataset(_config("folder", tmp_path / "two")).fingerprint not in (first, renamed)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "d", 3)
    (root / "cat" / "1.png").write_bytes(b"")
    data = open_dataset(DataConfig(source=SourceConfig(path=str(root)), split=SplitConfig(train=1, val=0, test=0)))
    with pytest.raises(DataError, match="empty file") as caught:
        data.splits["train"].image(1)
    assert caught.value.where == str(root / "cat" / "1.png")


def test_a_users_source(plugin: str) -> None:
    data = open_dataset(_config(f"{plugin}:squares", count=10))
    assert data.classes == ("a", "b")
    split = data.splits["train"]
    for index in range(len(split)):
        number = int(split.key(index)[1:])
        assert split.labels[index] == 1 - number % 2  # label 0 was b
        assert split.image(index).getpixel((4, 3)) == (number,) * 3
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(split)).image(0)), np.asarray(split.image(0)))


def test_a_users_source_with_splits(plugin: str) -> None:
    data = open_dataset(_config(f"{plugin}:squares", count=8, splits={"train": [0, 1, 5, 4], "test": [7], "val": [2]}))
    assert [data.splits["train"].key(index) for index in range(4)] == ["s0", "s1", "s4", "s5"]
    assert data.splits["test"].image(0).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"pixels": "float"}, "float"),
        ({"classes": ["a", "a"]}, "[Cc]lass names"),
        ({"classes": ["a"]}, "two classes"),
        ({"labels": [0, 1, 2, 0]}, "outside its classes"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, "integers"),
        ({"labels": [0, 1]}, "2 labels"),
        ({"splits": {"train": [0, 2], "test": [1, 3]}}, "train split"),
    ],
)
def test_a_users_source_is_checked(plugin: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(_config(f"{plugin}:squares", count=4, **args)).splits["train"].image(0)


def test_a_source_must_return_samples(plugin: str) -> None:
    with pytest.raises(DataError, match="return samples"):
        open_dataset(_config(f"{plugin}:nothing"))


@pytest.mark.parametrize(
    ("name", "path", "args", "message"),
    [
        ("foldre", "x", {}, "folder"),
        ("folder", "x", {"ignroe": ["*.txt"]}, "ignore"),
        ("folder", "x", {"path": "y"}, "path"),
        ("folder", None, {}, "requires a path"),
        ("os:system", "x", {}, "os:system"),
    ],
)
def test_names_and_arguments_are_checked_without_data(
    name: str, path: str | None, args: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_source(_config(name, None if path is None else Path(path), **args))


def test_good_names_pass_the_check() -> None:
    check_source(_config("folder", Path("does/not/exist"), ignore=["*.txt"]))
    check_source(_config("digits"))


@pytest.mark.parametrize(
    ("name", "args", "valid"),
    [
        ("folder", {"ignore": [2019]}, "a string, or a list of strings"),
        ("folder", {"splits": ["a"]}, "a mapping of strings, or a string, or null"),
        ("manifest", {"columns": ["a"]}, "a mapping of strings, or null"),
        ("manifest", {"strip": 3}, "a string, or a list of strings, or null"),
        ("manifest", {"root": 3}, "a string, or null"),
        ("arrays", {"ignore_file": 3}, "a string, or null"),
    ],
)
def test_arguments_of_the_wrong_type(name: str, args: dict[str, object], valid: str) -> None:
    with pytest.raises(ConfigError, match="wrong type") as caught:
        check_source(_config(name, Path("x"), **args))
    assert caught.value.where == f"data.source.args.{next(iter(args))}"
    assert caught.value.valid == valid


def test_arguments_of_the_right_type() -> None:
    check_source(_config("folder", Path("x"), ignore="*.txt", splits="none"))
    check_source(_config("manifest", Path("x"), columns={"class_id": None}, strip=["a"], splits={"a": "train"}))
