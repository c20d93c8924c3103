"""Parquet files with images, laid out as Hugging Face `datasets` 5.2 writes them and as others do."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from raycls.config.load import from_dict
from raycls.config.sections.data import DataConfig
from raycls.data.source import Dataset, open_dataset, open_pool
from raycls.data.sources.packed import files
from raycls.errors import DataError

_NAMES = ("zebra", "ant", "bee")


def _png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4 + level % 3, 5), (level, 2 * level % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def _write(
    file: Path, levels: Sequence[int], label: Callable[[int], Any] = lambda level: level % 3, **more: Any
) -> None:
    """A file as `datasets` writes it, two rows to a row group. `more`: names of classes, other columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    feature = {"names": list(more.pop("names", _NAMES)), "_type": "ClassLabel"}
    told = {"info": {"features": {"image": {"_type": "Image"}, "label": more.pop("feature", feature)}}}
    images = [{"bytes": _png(level), "path": f"{level:04d}.png"} for level in levels]
    columns = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array([label(level) for level in levels]),
        **{name: pa.array(values) for name, values in more.items()},
    }
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(told)})
    parquet.write_table(table, file, row_group_size=2)


def _config(path: Path, **args: Any) -> DataConfig:
    return from_dict({"data": {"source": {"name": "parquet", "path": str(path), "args": args}}}).data


def _levels(dataset: Dataset) -> Mapping[str, list[int]]:
    """The images of each split by the level that they were made of."""
    return {
        name: [np.asarray(split.image(index))[0, 0, 0].item() for index in range(len(split))]
        for name, split in dataset.splits.items()
    }


def test_shards_of_datasets_are_read_with_their_splits_and_declared_classes(tmp_path: Path) -> None:
    for shard in range(2):
        _write(tmp_path / f"data/train-{shard:05d}-of-00002.parquet", range(9 * shard, 9 * shard + 9))
    _write(tmp_path / "data/validation-00000-of-00001.parquet", range(20, 23))
    _write(tmp_path / "data/test-00000-of-00001.parquet", range(30, 33))
    found = open_dataset(_config(tmp_path))
    assert found.classes == _NAMES  # as declared, not sorted
    assert found.own_splits == ("test", "train", "val")
    assert _levels(found) == {"train": [*range(18)], "val": [20, 21, 22], "test": [30, 31, 32]}
    train = found.splits["train"]
    assert [train.label(index) for index in (0, 1, 11)] == ["zebra", "ant", "bee"]
    assert train.key(10) == "data/train-00001-of-00002.parquet[1]"
    assert train.locate(10) == str(tmp_path / "data/train-00001-of-00002.parquet[1]")
    assert "start a new run" in train.without(10)  # its keys are positions
    copy = pickle.loads(pickle.dumps(train))
    assert np.array_equal(copy.image(13), train.image(13))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/0000.parquet", "train/0001.parquet"], ("train",)),
        (["a/train/0000.parquet", "a/test/0000.parquet"], ("test", "train")),
        (["x.parquet", "y.parquet"], None),
        (["part-0000.parquet", "part-0001.parquet"], ()),
        (["train.parquet", "dev.parquet"], ("val", "train")),
    ],
)
def test_splits_by_the_names_of_files_and_folders(tmp_path: Path, names: list[str], splits: Any) -> None:
    for at, name in enumerate(names):
        _write(tmp_path / name, range(20 * at, 20 * at + 18))
    if splits is not None:
        assert open_dataset(_config(tmp_path)).own_splits == splits
        return
    with pytest.raises(DataError) as caught:
        open_dataset(_config(tmp_path))
    assert caught.value.found == "'x', 'y'"
    assert "data.source.args.splits={x: train, y: train}" in (caught.value.fix or "").replace("'", "")
    assert open_dataset(_config(tmp_path, splits={"x": "train", "y": "test"})).own_splits == ("train", "test")
    assert open_dataset(_config(tmp_path, splits="none")).own_splits == ()


def test_other_columns_string_labels_keys_and_what_is_left_out(tmp_path: Path) -> None:
    table = pa.table(
        {
            "jpeg": pa.array([_png(level) for level in range(12)], pa.large_binary()),
            "species": pa.array(["10", "9"] * 6).dictionary_encode(),
            "id": [f"n{level}" for level in range(12)],
            "camera": [["north", None][level % 2] for level in range(12)],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", compression="zstd")
    columns = {"label": "species", "key": "id"}
    pool = open_pool(_config(tmp_path / "t.parquet", columns=columns, ignore=["n3", "/n5"]), about=["camera"])
    assert pool.classes == ("9", "10")
    assert list(pool.keys) == [f"n{level}" for level in range(12) if level not in (3, 5)]
    assert list(pool.about["camera"])[:4] == ["north", "", "north", "north"]
    assert [pool.classes[label] for label in pool.labels[:4]] == ["10", "9", "10", "10"]
    dataset = open_dataset(_config(tmp_path / "t.parquet", columns=columns))
    shown = {
        dataset.splits[name].key(row): level
        for name, each in _levels(dataset).items()
        for row, level in enumerate(each)
    }
    assert shown == {f"n{level}": level for level in range(12)}
    with pytest.raises(DataError) as caught:
        open_dataset(_config(tmp_path / "t.parquet", columns={"label": "spezies"}))
    assert caught.value.fix == "did you mean species?"
    with pytest.raises(DataError) as caught:
        open_dataset(_config(tmp_path / "t.parquet"))
    assert "data.source.args.columns.label=" in (caught.value.fix or "")


def test_lists_of_labels_are_any_number_of_classes(tmp_path: Path) -> None:
    feature = {"feature": {"names": list(_NAMES), "_type": "ClassLabel"}, "_type": "List"}
    _write(tmp_path / "t.parquet", range(6), lambda level: [[], [0], [2, 1]][level % 3], feature=feature)
    dataset = open_dataset(_config(tmp_path / "t.parquet"))
    labels = {
        int(np.asarray(split.image(row))[0, 0, 0]): split.label(row)
        for split in dataset.splits.values()
        for row in range(len(split))
    }
    assert labels == {level: ["", "zebra", "ant, bee"][level % 3] for level in range(6)}


@pytest.mark.parametrize(
    ("make", "what", "found"),
    [
        (lambda file: file.write_bytes(b"PAR1 and no more"), "a Parquet file cannot be read", "Parquet"),
        (lambda file: _write(file, range(4), lambda level: -1), "a label is none of the declared classes", "-1"),
        (lambda file: _write(file, range(4), lambda level: [0, None][level % 2]), "an image has no label", "2 of them"),
        (lambda file: parquet.write_table(pa.table({"image": ["a"], "label": [1]}), file), "no image files", "string"),
        (lambda file: _write(file, range(4), lambda level: 0.5, feature={}), "neither an integer nor a string", "0.5"),
    ],
)
def test_a_file_that_is_no_data_set_is_named(
    tmp_path: Path, make: Callable[[Path], None], what: str, found: str
) -> None:
    make(tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        open_dataset(_config(tmp_path))
    assert what in caught.value.what
    assert found in (caught.value.found or "")
    assert str(tmp_path / "t.parquet") in (caught.value.where or "")


def test_files_that_differ_and_images_that_are_paths_are_told(tmp_path: Path) -> None:
    _write(tmp_path / "d/train.parquet", range(9))
    _write(tmp_path / "d/test.parquet", range(9), names=("other", "names", "here"))
    with pytest.raises(DataError) as caught:
        open_dataset(_config(tmp_path / "d"))
    assert "differ in their columns or classes" in caught.value.what
    images = pa.array(
        [{"bytes": None, "path": "/a/1.png"}] * 9, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    parquet.write_table(pa.table({"image": images, "label": [0, 1, 2] * 3}), tmp_path / "p.parquet")
    split = open_dataset(_config(tmp_path / "p.parquet")).splits["train"]
    with pytest.raises(DataError) as caught:
        split.image(0)
    assert caught.value.what == "a row has no image"
    assert "embed" in (caught.value.valid or "")


def test_a_damaged_row_group_is_an_error_of_its_rows_alone(tmp_path: Path) -> None:
    _write(tmp_path / "t.parquet", range(9))
    about = parquet.ParquetFile(tmp_path / "t.parquet").metadata.row_group(1)
    at = next(about.column(i) for i in range(about.num_columns) if about.column(i).path_in_schema == "image.bytes")
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    start = at.dictionary_page_offset if at.has_dictionary_page else at.data_page_offset
    data[start : start + 12] = b"\xff" * 12
    (tmp_path / "t.parquet").write_bytes(data)
    pool = open_pool(_config(tmp_path / "t.parquet"))
    assert isinstance(pool.reader.read(0), bytes)
    with pytest.raises(DataError) as caught:
        pool.reader.read(2)
    assert caught.value.where == str(tmp_path / "t.parquet[2]")


def test_row_groups_that_cost_much_are_told_and_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.data.sources.packed import parquet as source

    _write(tmp_path / "t.parquet", range(60))
    assert open_pool(_config(tmp_path / "t.parquet")).notes == ()
    monkeypatch.setattr(source, "_LARGE", 10)
    pool = open_pool(_config(tmp_path / "t.parquet"))
    assert "raycls pack rewrites the data" in pool.notes[0]
    for row in (*range(60), 0):
        assert pool.reader.read(row) == _png(row)
    assert len(files._kept.batches) <= 8
    monkeypatch.setattr(files, "_KEPT_BYTES", 1)
    assert [pool.reader.read(row) for row in (9, 2)] == [_png(9), _png(2)]
    assert len(files._kept.batches) == 1
