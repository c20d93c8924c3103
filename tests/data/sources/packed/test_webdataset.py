"""Tar shards as the source `webdataset` reads them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.tars import write_shard
from PIL import Image

from raycls.config.load import from_dict
from raycls.config.sections.data import DataConfig
from raycls.data.source import Dataset, open_dataset, open_pool
from raycls.errors import DataError


def _png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4 + level % 3, 5), (level, 2 * level % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def _samples(levels: Sequence[int], **more: Any) -> list[dict[str, Any]]:
    return [{"__key__": f"{level:04d}", "png": _png(level), "cls": level % 3, **more} for level in levels]


def _config(path: Path | str, **args: Any) -> DataConfig:
    return from_dict({"data": {"source": {"name": "webdataset", "path": str(path), "args": args}}}).data


def _levels(dataset: Dataset) -> dict[str, list[int]]:
    return {
        name: [np.asarray(split.image(index))[0, 0, 0].item() for index in range(len(split))]
        for name, split in dataset.splits.items()
    }


def _refused(path: Path | str, **args: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(_config(path, **args))
    return caught.value


def test_shards_are_read_with_their_splits_classes_and_keys(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0000.tar", _samples(range(9)))
    write_shard(tmp_path / "train-0001.tar", _samples(range(9, 18)))
    write_shard(tmp_path / "val-0000.tar", _samples(range(20, 23)))
    write_shard(tmp_path / "test-0000.tar", _samples(range(30, 33)))
    found = open_dataset(_config(tmp_path))
    assert found.classes == ("0", "1", "2")
    assert _levels(found) == {"train": [*range(18)], "val": [20, 21, 22], "test": [30, 31, 32]}
    train = found.splits["train"]
    assert [train.label(index) for index in (0, 1, 17)] == ["0", "1", "2"]
    assert train.key(9) == "train-0001.tar/0009.png"
    assert train.locate(9) == str(tmp_path / "train-0001.tar/0009.png")
    copy = pickle.loads(pickle.dumps(train))
    assert np.array_equal(copy.image(13), train.image(13))
    left = open_dataset(
        _config(tmp_path, ignore=["/train-0000.tar/0003.png", "train-0001.tar", "*[7].cls", "0007.png"])
    )
    assert _levels(left)["train"] == [0, 1, 2, 4, 5, 6, 8]  # an image that is left out takes its label with it


def test_names_of_classes_are_declared_by_a_list_or_a_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", _samples(range(12)))
    (tmp_path / "names.txt").write_text("zebra\nant\nbee\n")
    for classes in (["zebra", "ant", "bee"], "names.txt", str(tmp_path / "names.txt")):
        pool = open_pool(_config(tmp_path / "a.tar", classes=classes))
        assert pool.classes == ("zebra", "ant", "bee")
        assert pool.labels.tolist() == [0, 1, 2] * 4
    error = _refused(tmp_path / "a.tar", classes=["zebra", "ant"])
    assert (error.where, error.found, error.valid) == (str(tmp_path / "a.tar/0002.png"), "2", "0 to 1")


def test_a_pattern_names_shards_and_what_all_names_share_is_no_split(tmp_path: Path) -> None:
    for name in ("pets-train-0000", "pets-train-0001", "pets-validation-0000"):
        write_shard(tmp_path / f"{name}.tar", _samples(range(6)))
    found = open_dataset(_config(tmp_path / "pets-{train-0001,validation-0000}.tar"))
    assert found.own_splits == ("train", "val")
    found = open_dataset(_config(tmp_path / "pets-train-{0000..0001}.tar"))
    assert (len(found.splits["train"]), found.own_splits) == (9, ())
    error = _refused(tmp_path / "pets-train-{0000..0003}.tar")
    assert error.found == f"{tmp_path}/pets-train-0002.tar, {tmp_path}/pets-train-0003.tar"


def test_labels_and_columns_from_json_text_and_other_suffixes(tmp_path: Path) -> None:
    told = [{"label": "ant", "camera": "north", "n": 2}, {"label": "bee", "camera": None}] * 10
    samples = [{"__key__": f"d/{at}", "JPG": _png(at), "json": each} for at, each in enumerate(told)]
    samples = [{("jpg" if key == "JPG" else key): value for key, value in each.items()} for each in samples]
    write_shard(tmp_path / "a.tar", samples)
    pool = open_pool(_config(tmp_path / "a.tar"), about=["camera"])
    assert pool.classes == ("ant", "bee")
    assert [*pool.about["camera"]][:3] == ["north", "", "north"]
    assert pool.keys[1] == "a.tar/d/1.jpg"
    write_shard(
        tmp_path / "t.tar", [{"__key__": f"{at}", "png": _png(at), "txt": f" {at % 2:02d}\n"} for at in range(9)]
    )
    assert open_pool(_config(tmp_path / "t.tar")).classes == ("00", "01")
    several = [
        {"__key__": f"{at}", "a.png": _png(at), "b.png": _png(9), "json": {"tags": [at % 2, 2]}} for at in range(9)
    ]
    write_shard(tmp_path / "s.tar", several)
    pool = open_pool(_config(tmp_path / "s.tar", columns={"image": "a.png", "label": "json.tags"}))
    assert pool.sets is not None
    assert (pool.classes, pool.counts(np.arange(9)).tolist()) == (("0", "1", "2"), [5, 4, 9])


def test_members_of_a_sample_need_not_stand_together_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    parts = [{"__key__": "a", "png": _png(1)}, {"__key__": "b", "cls": 1}, {"__key__": "._a", "png": b"x"}]
    more = [{"__key__": "b", "png": _png(2)}, {"__key__": "a", "cls": 0}, {"__key__": "__meta__/a", "json": {}}]
    write_shard(tmp_path / "a.tar", [*parts, *more])
    assert open_pool(_config(tmp_path / "a.tar")).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("samples", "what", "found"),
    [
        ([{"__key__": "b", "cls": 1}], "a sample has no image", "cls"),
        ([{"__key__": "b", "png": b"", "jpg": b"", "cls": 1}], "a sample has several images", "png, jpg, cls"),
        ([{"__key__": "b", "png": b""}], "a sample has no label cls", "png"),
        ([{"__key__": "b", "png": b"", "cls": ""}], "a sample has no label cls", "png, cls"),
        ([{"__key__": "b", "png": b"", "cls": b"\xff"}], "a label is not UTF-8 text", "invalid start byte"),
        ([{"__key__": "0001", "png": b""}], "a sample has two members of one suffix", "0001.png, 0001.png"),
    ],
)
def test_samples_that_are_not_whole_are_refused_by_name(
    tmp_path: Path, samples: list[dict[str, Any]], what: str, found: str
) -> None:
    write_shard(tmp_path / "train-0.tar", [*_samples(range(6)), *samples])
    error = _refused(tmp_path)
    assert error.what == what
    assert found in (error.found or "")
    assert (error.where or "").startswith(f"{tmp_path}/train-0.tar: ")
    if error.fix and "args.ignore" in error.fix:
        assert "/train-0.tar" in error.fix or "train-0.tar/" in error.fix


def test_images_alone_and_unknown_columns_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [{"__key__": "a", "jpg": b"", "json": {"kind": "x", "size": 3}}])
    error = _refused(tmp_path / "a.tar")
    assert (error.found, error.fix) == (
        "json.kind, json.size",
        "name it, such as data.source.args.columns.label=json.kind",
    )
    assert (
        _refused(tmp_path / "a.tar", columns={"label": "json.kin"}).found
        == "jpg, json, json.kind, json.size; did you mean kind?"
    )
    assert _refused(tmp_path / "a.tar", columns={"picture": "jpg"}).found == "picture"
    write_shard(tmp_path / "b.tar", [{"__key__": "a", "jpg": b"", "json": b"[1"}])
    assert _refused(tmp_path / "b.tar", columns={"label": "json.kind"}).what == "this is not a JSON object"


def test_a_shard_that_changes_while_it_is_used_is_an_error(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", _samples(range(12)))
    split = open_dataset(_config(tmp_path)).splits["train"]
    write_shard(tmp_path / "a.tar", _samples(range(40)))
    with pytest.raises(DataError, match="a shard is not what it was") as caught:
        split.image(0)
    assert caught.value.where == str(tmp_path / "a.tar")
