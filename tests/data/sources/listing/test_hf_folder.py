"""Folders with metadata files, as `imagefolder` of Hugging Face `datasets` 5.2 reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from raycls.config.load import from_dict
from raycls.config.sections.data import DataConfig
from raycls.data.source import open_dataset, open_pool
from raycls.data.sources.recognised import recognised
from raycls.errors import DataError


def _config(path: Path, **args: Any) -> DataConfig:
    return from_dict({"data": {"source": {"name": "hf_folder", "path": str(path), "args": args}}}).data


def _images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (len(name), 0, 0)).save(folder / name)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _refused(path: Path, **args: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(_config(path, **args))
    return caught.value


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_folder_with_one_metadata_file(tmp_path: Path, name: str) -> None:
    rows = [{"file_name": f"{at:02d}.png", "label": ("ant", "bee")[at % 2], "site": at % 3} for at in range(20)]
    _images(tmp_path, *(row["file_name"] for row in rows))
    _write(tmp_path / name, rows)
    pool = open_pool(_config(tmp_path), about=["site"])
    assert (pool.classes, pool.labels.tolist(), pool.splits) == (("ant", "bee"), [0, 1] * 10, None)
    assert [*pool.keys] == [row["file_name"] for row in rows]
    assert [*pool.about["site"]][:4] == ["0", "1", "2", "0"]
    assert recognised(str(tmp_path)) == "hf_folder"


def test_a_metadata_file_for_each_split(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("validation", 2), ("test", 2)):
        rows = [{"file_name": f"sub/{at}.png", "class": str(at % 2)} for at in range(count)]
        _images(tmp_path / split, *(row["file_name"] for row in rows))
        _write(tmp_path / split / "metadata.jsonl", rows)
    found = open_dataset(_config(tmp_path))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert found.splits["val"].key(1) == "validation/sub/1.png"
    assert found.splits["val"].image(1).size == (2, 2)
    assert open_dataset(_config(tmp_path, splits="none")).own_splits == ()
    assert recognised(str(tmp_path)) == "hf_folder"
    error = _refused(tmp_path, ignore=["train/sub/0.png", "*/1.png"], splits={"train": "test"})
    assert error.what == "there is nothing to train on: the train split is empty"


def test_a_file_at_the_top_lists_folders_of_splits(tmp_path: Path) -> None:
    names = [f"{split}/{at}.png" for split in ("Training", "test") for at in range(4)]
    _images(tmp_path, *names)
    _write(tmp_path / "metadata.csv", [{"file_name": name, "label": name[-5]} for name in names])
    found = open_dataset(_config(tmp_path))
    assert set(found.own_splits) == {"train", "test"}
    _images(tmp_path, "more/0.png")
    _write(tmp_path / "metadata.csv", [{"file_name": n, "label": n[-5]} for n in [*names, "more/0.png"]])
    error = _refused(tmp_path)
    assert (error.what, error.found) == ("unknown split", "'more'")


def test_images_that_no_row_lists_are_an_error(tmp_path: Path) -> None:
    _images(tmp_path, *(f"{at}.png" for at in range(12)), ".hidden.png", "deep/x.JPG".replace("JPG", "jpg"))
    _write(tmp_path / "metadata.csv", [{"file_name": f"{at}.png", "label": str(at % 2)} for at in range(11)])
    error = _refused(tmp_path)
    assert (error.what, error.found) == ("2 images of the folder are not in its metadata", "11.png, deep/x.jpg")
    assert len(open_pool(_config(tmp_path, ignore=["/11.png", "deep/*"])).keys) == 11


def test_rows_without_a_file_and_folders_without_metadata_are_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _images(tmp_path / split, "0.png", "1.png")
    _write(tmp_path / "train/metadata.csv", [{"file_name": f"{at}.png", "label": at} for at in range(2)])
    _write(tmp_path / "test/metadata.csv", [{"file_name": f"{at}.png", "label": at} for at in range(3)])
    error = _refused(tmp_path)
    assert error.what == "1 of 5 listed images do not exist"
    assert error.where == f"{tmp_path}:test/metadata.csv:4"
    _write(tmp_path / "test/metadata.jsonl", [{"file_name": "0.png", "label": "0"}])
    assert _refused(tmp_path).what == "a folder has two metadata files"
    (tmp_path / "a").mkdir()
    assert _refused(tmp_path / "a").found == "nothing"
