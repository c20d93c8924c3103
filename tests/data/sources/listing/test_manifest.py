"""Lists of images in CSV, JSON Lines and JSON give the same samples, and an error has a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness.errors import raised

from raycls.data.sources.listing.manifest import manifest
from raycls.errors import DataError

ROWS = [("x/1.png", "dog", "train"), ("x/2.png", "cat", "train"), ("y/3, 4.png", "dog", "validation")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for path, _, _ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    return tmp_path


def _csv(split: bool = True, header: str = "path,label") -> str:
    lines = [header + (",split" if split else "")]
    lines += [f'"{path}",{label}' + (f",{split_}" if split else "") for path, label, split_ in ROWS]
    return "\n".join(lines) + "\n"


def _jsonl(path: str = "path", label: str = "label") -> str:
    return "".join(json.dumps({path: row[0], label: row[1], "split": row[2], "more": 1}) + "\n" for row in ROWS)


def _json(ids: bool) -> str:
    images = [{"file_path": row[0], "split": row[2], "id": f"i{index}"} for index, row in enumerate(ROWS)]
    annotations = [{"label": row[1]} | ({"image_id": f"i{index}"} if ids else {}) for index, row in enumerate(ROWS)]
    if ids:
        annotations.reverse()
    return json.dumps({"info": {}, "images": images, "annotations": annotations}, indent=1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", _csv()),
        ("m.csv", "\ufeff" + _csv(header="File_Path, CLASS ").replace("\n", "\r\n")),
        ("m.tsv", _csv().replace(",", "\t").replace("3\t 4", "3, 4")),
        ("m.jsonl", _jsonl()),
        ("m.jsonl", _jsonl("image", "class") + "\n\n"),
        ("m.json", _json(ids=False)),
        ("m.json", _json(ids=True)),
    ],
)
def test_the_forms_agree(images: Path, name: str, text: str) -> None:
    (images / name).write_text(text, encoding="utf-8", newline="")
    samples = manifest(images / name)
    assert list(samples.classes) == ["cat", "dog"]
    assert list(samples.keys) == [row[0] for row in ROWS]
    assert list(samples.labels) == [1, 0, 1]
    assert {name: list(rows) for name, rows in (samples.splits or {}).items()} == {"train": [0, 1], "val": [2]}
    assert samples.reader.read(2) == b"y/3, 4.png"


def test_without_splits(images: Path) -> None:
    (images / "m.csv").write_text(_csv(split=False))
    assert manifest(images / "m.csv").splits is None


def test_paths_start_from_root(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("lists") / "m.csv"
    elsewhere.write_text(_csv())
    assert manifest(elsewhere, root=str(images)).reader.read(0) == b"x/1.png"
    listed = re.compile(r"^x/1\.png \(line 2\), x/2\.png \(line 3\)")
    with raised(DataError, what=re.compile("3 of 3"), where=f"{elsewhere}:2", found=listed):
        manifest(elsewhere)


def test_whole_numbers_are_labels(images: Path) -> None:
    rows = [{"path": row[0], "label": label} for row, label in zip(ROWS, (10, 9, 10), strict=True)]
    (images / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples = manifest(images / "m.jsonl")
    assert list(samples.classes) == ["9", "10"]  # in the order of their values
    assert list(samples.labels) == [1, 0, 1]


HEAD = "path,label\nx/1.png,dog\n"
LINE = '{"path": "x/1.png", "label": "dog"}\n'


@pytest.mark.parametrize(
    ("name", "text", "place", "message"),
    [
        ("m.csv", "", None, "lists no image"),
        ("m.csv", "path,label\n", None, "lists no image"),
        ("m.csv", "name,label\nx/1.png,dog\n", "2", "no path"),
        ("m.csv", "path,kind\nx/1.png,dog\n", "2", "no label"),
        ("m.csv", "path,file,label\nx/1.png,x/1.png,dog\n", "2", "path, file"),
        ("m.csv", "path,path,label\n", "1", "a column twice"),
        ("m.csv", HEAD + "x/2.png\n", "3", "1 .* 2"),
        ("m.csv", HEAD + "\n\nx/2.png,\n", "5", "label is empty"),
        ("m.csv", HEAD + "x/1.png,cat\n", "3", "listed twice"),
        ("m.csv", HEAD + "x/../x/1.png,cat\n", "3", "listed twice"),
        ("m.csv", HEAD + 'x/2.png,"cat\n', "3", "CSV"),
        ("m.csv", HEAD + "gone.png,dog\n", "3", "1 of 2"),
        ("m.csv", "path,label,split\nx/1.png,a,train\nx/2.png,b,trian\n", "3", "unknown split"),
        ("m.csv", "path,label,split\nx/1.png,a,train\nx/2.png,b,\n", "3", "has no split"),
        ("m.jsonl", LINE + "{oops\n", "2", "valid JSON"),
        ("m.jsonl", LINE + "[1]\n", "2", "JSON object"),
        ("m.jsonl", LINE + '{"path": "x/2.png", "label": null}\n', "2", "is empty"),
        ("m.jsonl", LINE + '{"path": "x/2.png", "label": true}\n', "2", "is empty"),
        ("m.jsonl", LINE + '{"path": 3, "label": "a"}\n', "2", "is empty"),
        ("m.json", '{"images": [\n  oops\n]}', "2", "valid JSON"),
        ("m.json", '{"images": []}', None, "lists no image"),
        ("m.json", "[]", None, "lists no image"),
        ("m.json", '{"annotations": []}', None, "objects named images"),
        ("m.json", "3", None, "objects named images"),
        ("m.json", '{"images": [{"file_path": "x/1.png"}], "annotations": []}', "images[0]", "no label"),
        (
            "m.json",
            '{"images": [{"file_path": "x/1.png"}, {"file_path": "x/2.png"}], "annotations": [{"label": "a"}]}',
            None,
            "2 images, 1",
        ),
        (
            "m.json",
            '{"images": [{"file_path": "x/1.png", "id": 1}], "annotations": [{"label": "a", "image_id": 2}]}',
            "annotations[0]",
            "not listed",
        ),
        (
            "m.json",
            '{"images": [{"file_path": "x/1.png", "id": 1}], "annotations": '
            '[{"label": "a", "image_id": 1}, {"label": "b", "image_id": 1}]}',
            "annotations[1]",
            "two classes",
        ),
        ("m.json", '{"images": [{}], "annotations": [{"label": "a"}]}', "images[0]", "no path"),
        ("m.txt", "x/1.png dog", None, "file type"),
    ],
)
def test_a_problem_has_a_place(images: Path, name: str, text: str, place: str | None, message: str) -> None:
    (images / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        manifest(images / name)
    assert caught.value.where == str(images / name) + (f":{place}" if place else "")


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        manifest(tmp_path / "gone.csv")
    (tmp_path / "m.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match="not UTF-8"):
        manifest(tmp_path / "m.csv")
