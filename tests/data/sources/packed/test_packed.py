"""Packed data of which a part is not what was written."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.source import Pool, open_pool
from raycls.errors import DataError
from raycls.session.packing import pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for level in range(20):
        path = tmp_path / "photos" / ("cat" if level % 2 else "dog") / f"{level}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (level, 0, 7)).save(path)
    run = load_text("", "c.yaml", [f"data.source.path={tmp_path / 'photos'}"]).run
    request = pack.Request(str(tmp_path / "packed"), processes=1, size=4, quality=0)
    pack.pack(run, request, join=lambda *_: nullcontext(), say=lambda text: None)  # pyright: ignore
    return tmp_path / "packed"


def _open(folder: Path) -> Pool:
    return open_pool(DataConfig(source=SourceConfig(name="packed", path=str(folder))))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda told: told.pop("quality"), "quality: Field required"),
        (lambda told: told["shards"][0].update(rows=-1), "shards.0.rows: "),
        (lambda told: told["shards"][0].update(name="../shard-00000.arrow"), "shards.0.name: "),
        (lambda told: told.update(version="1"), "version: "),
        (lambda told: told.update(shards=[]), "shards: "),
    ],
)
def test_a_manifest_that_says_something_else_is_damaged(folder: Path, change: Any, found: str) -> None:
    told = json.loads((folder / "pack.json").read_text())
    change(told)
    (folder / "pack.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="a file of the packed data is damaged") as raised:
        _open(folder)
    assert raised.value.where == str(folder / "pack.json") and found in str(raised.value.found)


def test_a_list_is_no_manifest(folder: Path) -> None:
    (folder / "pack.json").write_text("[1]")
    with pytest.raises(DataError, match="this is no file of raycls pack") as raised:
        _open(folder)
    assert raised.value.found == "kind: list"


def _rewritten(file: Path, column: str, values: list[int]) -> None:
    """The first batch of a file with other values in a column, in a file of the same size."""
    with pa.ipc.open_file(file) as reader:
        table, size = reader.read_all(), file.stat().st_size
    at = table.schema.get_field_index(column)
    table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert file.stat().st_size == size


def test_a_label_of_the_index_that_is_another_is_found(folder: Path) -> None:
    labels = [1 - int(label) for label in _open(folder).labels]
    _rewritten(folder / "index.arrow", "label", labels)
    with pytest.raises(DataError, match="damaged") as raised:
        _open(folder)
    assert raised.value.where == str(folder / "index.arrow") and "SHA-256" in str(raised.value.found)


def test_a_shard_with_other_columns_is_found(folder: Path) -> None:
    pool = _open(folder)
    file = folder / "shard-00000.arrow"
    file.write_bytes(file.read_bytes().replace(b"height", b"eighth"))
    with pytest.raises(DataError, match="damaged") as raised:
        pool.reader.read(0)
    assert "shard-00000.arrow[0]" in str(raised.value.where)


def test_pixels_of_another_shape_are_found(folder: Path) -> None:
    pool = _open(folder)
    rows = json.loads((folder / "pack.json").read_text())["shards"][0]["rows"]
    _rewritten(folder / "shard-00000.arrow", "height", [4] * (rows - 1) + [99])
    assert pool.reader.read(0).shape[2] == 3  # pyright: ignore
    with pytest.raises(DataError, match="damaged") as raised:
        pool.reader.read(rows - 1)
    assert "of 99 x 5 pixels" in str(raised.value.found)
