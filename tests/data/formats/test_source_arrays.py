"""Images and labels in an .npz; nothing is unpickled, nothing is guessed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from raycls.data.formats.arrays import arrays
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
    assert list(samples.classes) == ["10", "3", "9"]
    assert np.asarray(samples.labels).tolist() == [1, 1, 0, 2, 0]
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
        assert isinstance(next(iter(reader.loaded.values())), np.memmap)


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
        ({"labels": None}, "there is no labels"),
        ({"images": _images(3, 2, 2, 3) / 255}, "float64"),
        ({"images": _images(3, 2, 2, 4)}, r"\[3, 2, 2, 4\]"),
        ({"images": _images(3, 0, 2, 3)}, r"\[3, 0, 2, 3\]"),
        ({"labels": np.array([0, 1])}, r"shape \[2\]"),
        ({"labels": np.array([0.0, 1.0, 0.0])}, "float64"),
        ({"labels": np.array([0, "x", 1], dtype=object)}, "never unpickled"),
        ({"classes": np.array(["a"])}, "labels from 0 to 1"),
        ({"classes": np.array([1, 2])}, "classes is int64"),
        ({"labels": np.array(["a", "x", "a"]), "classes": np.array(["a", "b"])}, "'x' is not in classes"),
        ({"train_images": _images(1, 2, 2)}, "with and without a split"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    content = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        arrays(_save(tmp_path / "a.npz", **content))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no zip")
    for name in ("a.npz", "gone.npz"):
        with pytest.raises(DataError, match="cannot be read"):
            arrays(tmp_path / name)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", **GOOD)
    data = bytearray(path.read_bytes())
    position = data.index(GOOD["labels"].tobytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="CRC"):
        arrays(path)
