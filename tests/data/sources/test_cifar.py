"""CIFAR batches are read as Python 2 and 3 wrote them, and a pickle that wants more gets nothing."""

from __future__ import annotations

import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.errors import raised

from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.source import open_dataset
from raycls.data.sources.cifar import cifar
from raycls.errors import DataError


def _pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def _cifar10(root: Path, protocol: int = 2) -> Path:
    names = [b"ship", b"cat", b"dog"]
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": names, b"num_vis": 3072}, protocol))
    for number in range(1, 6):
        batch = {b"data": _pixels(4, number), b"labels": [0, 1, 2, 1], b"filenames": [b"x"] * 4}
        (root / f"data_batch_{number}").write_bytes(pickle.dumps(batch, protocol))
    batch = {b"data": _pixels(3, 9), b"labels": [2, 2, 0]}
    (root / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    return root


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cifar10(tmp_path: Path, protocol: int) -> None:
    samples = cifar(_cifar10(tmp_path, protocol))
    assert list(samples.classes) == ["ship", "cat", "dog"]
    assert np.asarray(samples.labels).tolist() == [0, 1, 2, 1] * 5 + [2, 2, 0]
    splits = {name: np.asarray(rows).tolist() for name, rows in (samples.splits or {}).items()}
    assert splits == {"train": list(range(20)), "test": [20, 21, 22]}
    assert (samples.keys[0], samples.keys[7], samples.keys[20]) == ("data_batch_1:0", "data_batch_2:3", "test_batch:0")
    # the file holds 1024 red bytes row by row, then green, then blue
    expected = _pixels(4, 2)[3]
    image = np.asarray(samples.reader.read(7))
    assert image.shape == (32, 32, 3)
    assert image[5, 9].tolist() == [expected[5 * 32 + 9], expected[1024 + 5 * 32 + 9], expected[2048 + 5 * 32 + 9]]


def test_cifar100(tmp_path: Path) -> None:
    meta = {"fine_label_names": ["apple", "bear"], "coarse_label_names": ["x"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(meta, 2))
    for name, count in (("train", 5), ("test", 2)):
        batch = {"data": _pixels(count, count), "fine_labels": [0, 1, 0, 1, 1][:count], "coarse_labels": [0] * count}
        (tmp_path / name).write_bytes(pickle.dumps(batch, 2))
    samples = cifar(tmp_path)
    assert list(samples.classes) == ["apple", "bear"]
    assert list(samples.keys) == [f"train:{index}" for index in range(5)] + ["test:0", "test:1"]
    assert np.asarray(samples.reader.read(6))[0, 0].tolist() == _pixels(2, 2)[1][[0, 1024, 2048]].tolist()


def _python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and numpy 1 pickled it with protocol 2: byte strings, numpy.core. By hand."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    def integers(*values: int) -> bytes:
        return b"".join(b"J" + struct.pack("<i", value) for value in values)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + integers(0, 1) + b"\x87R"
    dtype += b"(" + integers(3) + text(b"|") + b"NNN" + integers(-1, -1, 0) + b"tb"
    raw = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integers(0) + b"\x85" + text(b"b") + b"\x87R"
    array += (
        b"(" + integers(1) + integers(*pixels.shape) + b"\x86" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw
    )
    array += b"tb"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](" + integers(*labels) + b"eu."


def test_batches_of_python_2(tmp_path: Path) -> None:
    root = _cifar10(tmp_path)
    data = _python2_batch(_pixels(2, 5), [1, 2])
    oracle = pickle.loads(data, encoding="bytes")
    np.testing.assert_array_equal(oracle[b"data"], _pixels(2, 5))
    (root / "test_batch").write_bytes(data)
    samples = cifar(root)
    assert np.asarray(samples.labels).tolist()[-2:] == [1, 2]
    np.testing.assert_array_equal(samples.reader.read(21), _pixels(2, 5)[1].reshape(3, 32, 32).transpose(1, 2, 0))


def test_the_reader_takes_no_pixels_along(tmp_path: Path) -> None:
    reader = cifar(_cifar10(tmp_path)).reader
    first = np.asarray(reader.read(0))
    data = pickle.dumps(reader)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).read(0), first)


class _Evil:
    def __init__(self, call: Any, *args: Any) -> None:
        self.what = call, args

    def __reduce__(self) -> Any:
        return self.what


@pytest.mark.parametrize(
    "content",
    [
        _Evil(os.mkdir, "made-by-a-pickle"),
        _Evil(eval, "1/0"),
        _Evil(getattr, "text", "upper"),
        {"data": _Evil(np.load, "x"), "labels": [0]},
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, protocol: int
) -> None:
    root = _cifar10(tmp_path)
    monkeypatch.chdir(root)
    (root / "data_batch_3").write_bytes(pickle.dumps(content, protocol))
    called = re.compile(r"\b(posix\.mkdir|(__builtin__|builtins)\.(eval|getattr)|numpy\S*\.load)\b")
    with raised(DataError, where=str(root / "data_batch_3"), found=called):
        cifar(root)
    assert not (root / "made-by-a-pickle").exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"labels": [0, 1, 2, 1]},
        {"data": _pixels(4, 0), "labels": [0, 1]},
        {"data": _pixels(4, 0), "labels": [0, 1, 2, 3]},
        {"data": _pixels(4, 0), "labels": [0, 1, 2, "x"]},
        {"data": _pixels(4, 0)[:, :100].copy(), "labels": [0, 1, 2, 1]},
        {"data": _pixels(4, 0).astype(np.float32), "labels": [0, 1, 2, 1]},
        {"data": np.array([{}, None], dtype=object), "labels": [0, 1]},
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    root = _cifar10(tmp_path)
    (root / "test_batch").write_bytes(pickle.dumps(content, 2))
    with raised(DataError, what=re.compile("CIFAR"), where=str(root / "test_batch"), fix=re.compile("archive")):
        cifar(root)


def test_damage_is_an_error(tmp_path: Path) -> None:
    root = _cifar10(tmp_path)
    whole = (root / "test_batch").read_bytes()
    for cut in (0, 1, 10, 300, len(whole) - 1):
        (root / "test_batch").write_bytes(whole[:cut])
        with pytest.raises(DataError, match="damaged"):
            cifar(root)
    (root / "test_batch").unlink()
    with pytest.raises(DataError, match="No such file"):
        cifar(root)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder of CIFAR"):
        cifar(tmp_path)


def test_a_batch_too_many_is_named(tmp_path: Path) -> None:
    _cifar10(tmp_path)
    for name in ("readme.html", "data_batch_6", "valid_batch", "test"):
        (tmp_path / name).touch()
    with raised(DataError, where=str(tmp_path), found="data_batch_6, test, valid_batch"):
        cifar(tmp_path)


def test_the_order_of_the_names_is_that_of_the_classes(tmp_path: Path) -> None:
    config = DataConfig(source=SourceConfig(name="cifar", path=str(_cifar10(tmp_path))))
    data = open_dataset(config)
    assert data.classes == ("ship", "cat", "dog")
    assert data.splits["test"].labels.tolist() == [2, 2, 0]


def test_an_object_at_a_place_that_no_pickler_gives_is_refused(tmp_path: Path) -> None:
    """The unpickler makes room up to the place: with four flipped bytes that is more memory than a machine has."""
    root = _cifar10(tmp_path)
    for number in (100, 70_000):
        for file in root.rglob("test_batch"):
            file.write_bytes(b"\x80\x02}r" + number.to_bytes(4, "little") + b".")
        with pytest.raises(DataError) as found:
            open_dataset(DataConfig(source=SourceConfig(name="cifar", path=str(root))))
        assert f"is put at place {number}" in str(found.value.found)
