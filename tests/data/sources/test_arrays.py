"""Images and labels in an .npz; nothing is unpickled, nothing is guessed."""

from __future__ import annotations

import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from raycls.config.load import load_text
from raycls.data.source import Dataset, open_dataset
from raycls.data.sources.arrays import arrays
from raycls.errors import DataError


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _save(path: Path, **content: object) -> Path:
    np.savez(path, **content)
    return path


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (5, 4, 3, 1), (5, 4, 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_come_back(tmp_path: Path, shape: tuple[int, ...], save: object) -> None:
    images = _images(*shape)
    save(tmp_path / "a.npz", images=images, labels=np.array([3, 3, 10, 9, 10]))
    samples = arrays(tmp_path / "a.npz")
    assert list(samples.classes) == ["3", "9", "10"]
    assert np.asarray(samples.labels).tolist() == [0, 0, 2, 1, 2]
    assert list(samples.keys) == [f"images:{index}" for index in range(5)]
    assert samples.splits is None
    expected = images[..., 0] if shape[-1] == 1 else images
    for index in range(5):
        np.testing.assert_array_equal(samples.reader.read(index), expected[index])


def test_large_arrays_are_mapped_and_equal(tmp_path: Path) -> None:
    images = _images(40, 100, 120, 3)
    for number, content in enumerate((images, np.asfortranarray(images))):
        path = _save(tmp_path / f"{number}.npz", labels=np.arange(40) % 2, images=content)
        reader = arrays(path).reader
        for index in (0, 17, 39):
            np.testing.assert_array_equal(reader.read(index), images[index])
        assert len(pickle.dumps(reader)) < 1000
        assert isinstance(next(iter(reader.shards.opened.values())), np.memmap)


def test_splits_and_classes(tmp_path: Path) -> None:
    path = _save(
        tmp_path / "a.npz",
        train_images=_images(4, 8, 8),
        train_labels=np.array([[0], [1], [2], [1]]),
        test_images=_images(2, 8, 8),
        test_labels=np.array([[2], [0]]),
        classes=np.array(["zebra", "ant", "bee"]),
    )
    samples = arrays(path)
    assert list(samples.classes) == ["zebra", "ant", "bee"]
    assert np.asarray(samples.labels).tolist() == [0, 1, 2, 1, 2, 0]
    assert {name: np.asarray(rows).tolist() for name, rows in (samples.splits or {}).items()} == {
        "train": [0, 1, 2, 3],
        "test": [4, 5],
    }
    np.testing.assert_array_equal(samples.reader.read(5), _images(2, 8, 8)[1])
    assert samples.keys[5] == "test_images:1"


def test_labels_may_be_texts(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", images=_images(3, 2, 2), labels=np.array(["b", "a", "b"]))
    assert list(arrays(path).classes) == ["a", "b"]
    classes = np.array(["a", "b", "c"])
    path = _save(tmp_path / "a.npz", images=_images(3, 2, 2), labels=np.array(["b", "a", "b"]), classes=classes)
    assert np.asarray(arrays(path).labels).tolist() == [1, 0, 1]


GOOD = {"images": _images(3, 2, 2, 3), "labels": np.array([0, 1, 0])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "it holds labels"),
        ({"labels": None}, "no labels"),
        ({"images": _images(3, 2, 2, 3) / 255}, "float64"),
        ({"images": _images(3, 2, 2, 4)}, r"\[3, 2, 2, 4\]"),
        ({"images": _images(3, 0, 2, 3)}, r"\[3, 0, 2, 3\]"),
        ({"labels": np.array([0, 1])}, r"shape \[2\]"),
        ({"labels": np.array([0.0, 1.5, 0.0])}, "float64"),
        ({"labels": np.array([0.0, np.nan, 0.0])}, "float64"),
        ({"labels": np.array([b"\xe9", b"a", b"a"])}, "not UTF-8"),
        ({"labels": np.array([0, "x", 1], dtype=object)}, "never unpickled"),
        ({"classes": np.array(["a"])}, "0 to 1"),
        ({"classes": np.array([1, 2])}, "classes is int64"),
        ({"labels": np.array(["a", "x", "a"]), "classes": np.array(["a", "b"])}, "'x' .* classes"),
        ({"train_images": _images(1, 2, 2)}, "with and without"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    content = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        arrays(_save(tmp_path / "a.npz", **content))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no zip")
    for name in ("a.npz", "gone.npz"):
        with pytest.raises(DataError, match="cannot read"):
            arrays(tmp_path / name)


def test_a_path_that_is_no_file_is_no_matter_of_labels(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.npz", tmp_path, _save(tmp_path / "a.npz", **GOOD) / "b.npz"):
        with pytest.raises(DataError) as caught:
            arrays(path)
        assert caught.value.fix == "check data.source.path"
    with pytest.raises(DataError) as caught:
        arrays(_save(tmp_path / "a.npz", **GOOD | {"labels": np.array([0, "x", 1], dtype=object)}))
    assert "astype(str)" in (caught.value.fix or "")


@pytest.mark.parametrize(
    "kind",
    ["float of 0 to 1", "float of 0 to 255", "channels first", "float, channels first", "int64"],
)
def test_images_of_another_type_or_order_come_with_what_numpy_makes_of_them(tmp_path: Path, kind: str) -> None:
    """What is printed is evaluated, and gives the images that were converted from."""
    wanted = _images(4, 5, 6, 3)
    images: np.ndarray = wanted
    if "float" in kind:
        images = images.astype(np.float32) / (255 if "255" not in kind else 1)
    if "first" in kind:
        images = images.transpose(0, 3, 1, 2)
    if kind == "int64":
        images = images.astype(np.int64)
    labels = np.arange(4) % 2
    with pytest.raises(DataError) as caught:
        arrays(_save(tmp_path / "a.npz", images=images, labels=labels))
    fix = caught.value.fix or ""
    for part in fix.split("; ")[:-1]:
        found = re.findall(r"(?:numpy\.rint\(images(?: \* 255)?\)|images)\.\w+\([^)]*\)", part)
        typed = found[-1] if kind == "float of 0 to 255" else found[0]
        images = eval(typed, {"numpy": np, "images": images})
    samples = arrays(_save(tmp_path / "a.npz", images=images, labels=labels))
    assert all((samples.reader.read(row) == wanted[row]).all() for row in range(4))


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", **GOOD)
    data = bytearray(path.read_bytes())
    position = data.index(GOOD["labels"].tobytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="CRC"):
        arrays(path)


def _open(path: Path, *overrides: str) -> Dataset:
    return open_dataset(
        load_text("", "test", ["data.source.name=arrays", f"data.source.path={path}", *overrides]).run.data
    )


def _left_out(error: DataError) -> str:
    return next(word for word in shlex.split(error.fix or "") if word.startswith("data.source.args.ignore="))


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "valid_images", "valid_labels"),
        ("train_images", "train_labels", "validation_images", "validation_labels"),
        ("images_train", "labels_train", "images_dev", "labels_dev"),
        ("x_train", "y_train", "x_val", "y_val"),
        ("X_train", "y_train", "X_valid", "y_valid"),
        ("trainX", "trainY", "evalX", "evalY"),
        ("xtrain", "ytrain", "xval", "yval"),
        ("training_data", "training_targets", "dev_set_images", "dev_set_target"),
    ],
)
def test_usual_names_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    values = _images(4, 2, 2), np.arange(4) % 2, _images(2, 2, 2), np.array([1, 0])
    data = _open(_save(tmp_path / "a.npz", **dict(zip(names, values, strict=True))))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2}
    assert data.splits["val"].labels.tolist() == [1, 0]
    assert data.splits["val"].key(1) == f"{names[2]}:1"


def test_names_without_a_split(tmp_path: Path) -> None:
    for images, labels in (("X", "y"), ("data", "target"), ("imgs", "Labels")):
        samples = arrays(_save(tmp_path / "a.npz", **{images: _images(4, 2, 2), labels: np.arange(4) % 2}))
        assert (next(iter(samples.keys)), samples.splits) == (f"{images}:0", None)


FOUR = {"train_images": _images(6, 2, 2), "train_labels": np.arange(6) % 2} | {
    "test_images": _images(2, 2, 2),
    "test_labels": np.arange(2),
}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"extra_images": _images(2, 2, 2), "extra_labels": np.arange(2)}, ["extra_images", "extra_labels"]),
        ({"val_labels": np.arange(2)}, ["val_labels"]),
        ({"weights": np.ones(6)}, ["weights"]),
        ({"x_train": _images(6, 2, 2)}, ["x_train"]),
        ({"dev_images": _images(2, 2, 2)}, ["dev_images"]),
        ({"it's [1]": np.ones(6), "info": np.array({"a": 1}, dtype=object)}, ["info", "it's [1]"]),
    ],
)
def test_nothing_is_skipped_and_the_remedy_works(tmp_path: Path, more: dict[str, np.ndarray], named: list[str]) -> None:
    path = _save(tmp_path / "a.npz", **FOUR, **more)
    with pytest.raises(DataError) as caught:
        arrays(path)
    assert all(name in (caught.value.found or "") for name in named)
    data = _open(path, _left_out(caught.value))
    assert set(data.own_splits) == {"train", "test"}


def test_what_was_left_out_already_stays_so(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", **FOUR, one=np.ones(1), two=np.ones(1))
    with pytest.raises(DataError, match="not be used") as caught:
        _open(path, "data.source.args.ignore=[one]")
    assert set(_open(path, _left_out(caught.value)).own_splits) == {"train", "test"}


def test_images_with_and_without_a_split(tmp_path: Path) -> None:
    content = {"images": _images(6, 2, 2), "labels": np.arange(6) % 2}
    path = _save(tmp_path / "a.npz", **content, test_images=_images(2, 2, 2), test_labels=np.arange(2))
    with pytest.raises(DataError, match="with and without") as caught:
        arrays(path)
    assert _open(path, _left_out(caught.value)).own_splits == ()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (np.array([3, 10, 3, 2]), np.array(["10", "2"])),
        (np.array([3.0, 10.0, 3.0, 2.0]), np.array([10, 2])),
        (np.array(["3", "10", "3", "2"]), np.array([b"10", b"2"])),
        (np.array(["3.0", "10.0", "3.0", "2.0"]), np.array([10, 2], dtype=np.uint8)),
    ],
)
def test_labels_that_read_the_same_are_the_same(tmp_path: Path, train: np.ndarray, test: np.ndarray) -> None:
    images = {"train_images": _images(4, 2, 2), "test_images": _images(2, 2, 2)}
    data = _open(
        _save(tmp_path / "a.npz", **images, train_labels=train, test_labels=test),
        "data.split.train=0.8",
        "data.split.val=0",
        "data.split.test=0.2",
    )
    assert data.classes == ("2", "3", "10")
    assert data.splits["train"].labels.tolist() == [1, 2, 1, 0]
    assert data.splits["test"].labels.tolist() == [2, 0]


def test_unicode_forms_of_labels(tmp_path: Path) -> None:
    labels = np.array(["caf\xe9", "x"] * 5), np.array(["cafe\u0301", "x"])
    path = _save(
        tmp_path / "a.npz",
        train_images=_images(10, 2, 2),
        train_labels=labels[0],
        test_images=_images(2, 2, 2),
        test_labels=labels[1],
    )
    data = _open(path)
    assert data.classes == ("caf\xe9", "x")
    assert data.splits["test"].labels.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["classes", "class_names", "label_names"])
@pytest.mark.parametrize("kind", ["U", "S"])
def test_declared_classes_keep_their_order(tmp_path: Path, name: str, kind: str) -> None:
    classes = np.array(["zebra", "ant", "bee"]).astype(kind)
    labels = np.arange(12) % 3
    data = _open(_save(tmp_path / "a.npz", images=_images(12, 2, 2), labels=labels.astype(float), **{name: classes}))
    assert data.classes == ("zebra", "ant", "bee")
    split = data.splits["train"]
    assert [int(label) for label in split.labels] == [int(split.key(row)[7:]) % 3 for row in range(len(split))]
    texts = _open(_save(tmp_path / "b.npz", images=_images(12, 2, 2), labels=classes[labels], **{name: classes}))
    assert texts.splits["train"].labels.tolist() == split.labels.tolist()


def test_a_single_image_of_an_array_cannot_be_ignored(tmp_path: Path) -> None:
    split = _open(_save(tmp_path / "a.npz", **FOUR)).splits["test"]
    assert split.ignore is None
    assert "new run" in split.without(0)
