"""Tables as Windows and spreadsheets write them, columns of other names, paths from another machine."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from raycls.config.load import load_text
from raycls.data.source import Dataset, open_dataset
from raycls.data.sources.listing.manifest import manifest
from raycls.errors import DataError

FILES = {f"{label}/{index}.jpg": label for label in ("ant", "b\xe9e") for index in range(5)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).touch()
    return tmp_path / "p"


def _table(paths: dict[str, str] | None = None, delimiter: str = ",", header: str = "path,label") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(header.split(","))
    for path, label in FILES.items():
        writer.writerow([path if paths is None else paths[path], label])
    return text.getvalue()


def _open(file: Path, *overrides: str) -> Dataset:
    base = ["data.source.name=manifest", f"data.source.path={file}"]
    return open_dataset(load_text("", "test", [*base, *overrides]).run.data)


def _labels(data: Dataset) -> dict[str, str]:
    return {
        split.key(row): data.classes[split.labels[row]] for split in data.splits.values() for row in range(len(split))
    }


def _remedies(error: DataError, option: str = "") -> list[str]:
    start = f"data.source.args.{option}"
    return [word for word in shlex.split(error.fix or "") if word.startswith(start) and "=" in word]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_separators(root: Path, encoding: str, delimiter: str) -> None:
    for name in ("m.csv", "m.tsv"):
        (root / name).write_bytes(_table(delimiter=delimiter).encode(encoding))
        assert _labels(_open(root / name)) == FILES


def test_json_of_windows(root: Path) -> None:
    lines = [json.dumps({"path": path.replace("/", "\\"), "label": label}) for path, label in FILES.items()]
    for name, text in (("m.jsonl", "\r\n".join(lines)), ("m.json", f"[{','.join(lines)}]")):
        (root / name).write_bytes(text.encode("utf-16"))
        assert _labels(_open(root / name)) == FILES


def test_what_excel_writes_besides(root: Path) -> None:
    text = "sep=;\r\n" + _table(delimiter=";", header="Path ,LABEL").replace("\r\n", ";;\r\n") + ";;;\r\n;;;\r\n"
    (root / "m.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert _labels(_open(root / "m.csv")) == FILES
    (root / "m.csv").write_text(text + "ant/9.jpg;ant;;\r\n", encoding="utf-8-sig", newline="")
    with pytest.raises(DataError, match="do not exist") as caught:
        _open(root / "m.csv")
    assert caught.value.where == f"{root / 'm.csv'}:15"  # sep=, the header, ten rows, two empty ones


def test_an_encoding_of_windows_is_named(root: Path) -> None:
    (root / "m.csv").write_bytes(_table().encode("cp1252"))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        _open(root / "m.csv")
    assert _labels(_open(root / "m.csv", *_remedies(caught.value))) == FILES
    with pytest.raises(DataError, match="not cp9 text"):
        _open(root / "m.csv", "data.source.args.encoding=cp9")


@pytest.mark.parametrize("form", ["{}\\{}", ".\\{}\\{}", "{}/{}", "x\\..\\{}\\{}"])
def test_backslashes_divide_folders(root: Path, form: str) -> None:
    paths = {path: form.format(*path.split("/")) for path in FILES}
    (root / "m.csv").write_text(_table(paths))
    assert _labels(_open(root / "m.csv")) == FILES


def test_a_file_of_that_very_name_wins(root: Path) -> None:
    (root / "ant\\0.jpg").write_bytes(b"literal")
    paths = {path: path.replace("/", "\\") for path in FILES}
    (root / "m.csv").write_text(_table(paths))
    data = _open(root / "m.csv")
    assert _labels(data) == {path.replace("/", "\\") if path == "ant/0.jpg" else path: FILES[path] for path in FILES}


@pytest.mark.parametrize(
    "form",
    [
        "C:\\data\\{}\\{}",
        "c:/data set/{}/{}",
        "\\\\server\\share\\{}\\{}",
        "\\data\\{}\\{}",
        "D:\\{}\\{}",
        "/home/ann/it's/{}/{}",
        "data/train/{}/{}",
        "C:\\Users\\ant\\{}\\{}",
    ],
)
def test_paths_of_another_machine_have_a_remedy(root: Path, form: str) -> None:
    paths = {path: form.format(*path.split("/")) for path in FILES}
    (root / "m.csv").write_text(_table(paths))
    with pytest.raises(DataError, match="10 of 10") as caught:
        _open(root / "m.csv")
    assert ("Windows" in caught.value.what) == (form[0] in "CcD\\")
    assert caught.value.where == f"{root / 'm.csv'}:2"
    assert _labels(_open(root / "m.csv", *_remedies(caught.value, "strip"))) == FILES


def test_two_drives(root: Path) -> None:
    paths = {path: ("C:\\a\\" if path < "b" else "d:\\b\\c\\") + path.replace("/", "\\") for path in FILES}
    (root / "m.csv").write_text(_table(paths))
    with pytest.raises(DataError, match="10 of 10") as caught:
        _open(root / "m.csv")
    assert _labels(_open(root / "m.csv", *_remedies(caught.value))) == FILES


def test_images_in_another_folder(root: Path) -> None:
    """The part that is the same here cannot be seen: the remedy names it, and asks for the folder."""
    (root.parent / "lists").mkdir()
    file = root.parent / "lists" / "m.csv"
    file.write_text(_table({path: "C:\\data\\" + path.replace("/", "\\") for path in FILES}))
    with pytest.raises(DataError, match="absolute") as caught:
        _open(file)
    (strip,) = _remedies(caught.value, "strip")
    assert "holds ant\\0.jpg" in (caught.value.fix or "")
    assert _labels(_open(file, strip, f"data.source.args.root={root}")) == FILES


def test_a_folder_above_is_found(root: Path) -> None:
    (root / "lists").mkdir()
    (root / "lists" / "m.csv").write_text(_table())
    with pytest.raises(DataError, match="do not exist") as caught:
        _open(root / "lists" / "m.csv")
    assert _labels(_open(root / "lists" / "m.csv", *_remedies(caught.value, "root"))) == FILES


def test_a_part_of_the_name_is_no_prefix(root: Path) -> None:
    (root / "m.csv").write_text(_table({path: f"data{path}" for path in FILES}))
    with pytest.raises(DataError, match="do not exist"):
        _open(root / "m.csv", "data.source.args.strip=data")


@pytest.mark.parametrize(
    "header",
    [
        "filename,category",
        "Image Name,target",
        "file,species",
        "img,kind",
        "photo,class_name",
        "whatever,y",
        "id,breed",
        "file_name,labels",
    ],
)
def test_other_columns_have_a_remedy(root: Path, header: str) -> None:
    (root / "m.csv").write_text(_table(header=header))
    with pytest.raises(DataError, match=r"no (path|label)") as caught:
        _open(root / "m.csv")
    assert caught.value.found == header.replace(",", ", ")
    assert _labels(_open(root / "m.csv", *_remedies(caught.value, "columns"))) == FILES


def test_columns_in_json(root: Path) -> None:
    content = [{"img": path, "category": label, "fold": "train"} for path, label in FILES.items()]
    (root / "m.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no path") as caught:
        _open(root / "m.json")
    assert _labels(_open(root / "m.json", *_remedies(caught.value))) == FILES
    columns = "data.source.args.columns={path: img, label: category, split: fold}"
    assert _open(root / "m.json", columns).own_splits == ("train",)


def test_a_column_that_is_not_there(root: Path) -> None:
    (root / "m.csv").write_text(_table(header="file,klass"))
    with pytest.raises(DataError, match="no column class_name") as caught:
        _open(root / "m.csv", "data.source.args.columns={label: class_name, path: FILE}")
    assert caught.value.found == "file, klass"
    for columns in ("{image: file}", "{label: null}"):
        with pytest.raises(DataError, match="columns"):
            _open(root / "m.csv", f"data.source.args.columns={columns}")


def test_which_of_two_columns_counts(root: Path) -> None:
    ids = {"ant": 1, "b\xe9e": 0}
    rows = [{"path": path, "label": ids[label], "class": label} for path, label in FILES.items()]
    (root / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="label, class") as caught:
        _open(root / "m.jsonl")
    data = _open(root / "m.jsonl", *_remedies(caught.value))
    assert data.classes == ("b\xe9e", "ant")  # the numbers are their ids
    assert _labels(data) == FILES


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["3.0", "10.0"], ("3", "10")),
        (["10", "9"], ("9", "10")),
        (["1.0", "1.5"], ("1.0", "1.5")),
        ([" caf\xe9", "x"], ("caf\xe9", "x")),
        (["001", "1e5"], ("001", "1e5")),
        (["NaN", "True"], ("NaN", "True")),
    ],
)
def test_labels_as_they_read(root: Path, labels: list[str], classes: tuple[str, ...]) -> None:
    names = dict(zip(("ant", "b\xe9e"), labels, strict=True))
    text = "path,label\n" + "".join(f"{path},{names[label]}\n" for path, label in FILES.items())
    (root / "m.csv").write_text(text)
    assert _open(root / "m.csv").classes == classes


def test_one_label_in_two_forms(root: Path) -> None:
    forms = ["caf\xe9", "cafe\u0301 ", " caf\xe9", "caf\xe9\xa0", "caf\xe9"]
    text = "path,label\n" + "".join(
        f"{path},{forms[row % 5] if label == 'ant' else 'x'}\n" for row, (path, label) in enumerate(FILES.items())
    )
    (root / "m.csv").write_text(text)
    assert _open(root / "m.csv").classes == ("caf\xe9", "x")


def _with_splits(words: tuple[str, str]) -> str:
    return "path,label,split\n" + "".join(
        f"{path},{label},{words[path.endswith('4.jpg')]}\n" for path, label in FILES.items()
    )


@pytest.mark.parametrize("words", [("Training", "dev"), ("train_set", "hold-out"), ("TRAIN", "Validate")])
def test_the_split_column_knows_the_same_names(root: Path, words: tuple[str, str]) -> None:
    (root / "m.csv").write_text(_with_splits(words))
    data = _open(root / "m.csv")
    second = "test" if words[1] == "hold-out" else "val"
    assert set(data.own_splits) == {"train", second}
    assert len(data.splits[second]) == 2
    assert words[1] in data.notes[0] and data.notes[0].endswith(second)


def test_other_words_of_splits_have_remedies(root: Path) -> None:
    (root / "m.csv").write_text(_with_splits(("fold1", "2")))
    with pytest.raises(DataError, match="unknown split") as caught:
        _open(root / "m.csv")
    mapping, none = _remedies(caught.value, "splits")
    assert set(_open(root / "m.csv", mapping).own_splits) == {"train", "test"}
    assert _open(root / "m.csv", none).own_splits == ()


def test_images_are_left_out_by_their_paths(root: Path) -> None:
    (root / "m.csv").write_text(_table({path: path.replace("/", "\\") for path in FILES}))
    (root / "ant" / "0.jpg").unlink()
    data = _open(root / "m.csv", "data.source.args.ignore=[ant/0.jpg]")
    assert _labels(data) == {path: label for path, label in FILES.items() if path != "ant/0.jpg"}
    (root / "list.txt").write_text("ant/0.jpg\nant/1.jpg\n")
    assert len(_labels(_open(root / "m.csv", f"data.source.args.ignore_file={root / 'list.txt'}"))) == 8


@pytest.mark.parametrize("column", ["subset", "Partition", "set name"])
def test_a_column_of_splits_with_another_name_is_not_passed_over(root: Path, column: str) -> None:
    (root / "m.csv").write_text(_with_splits(("Train", "TEST")).replace(",split", f",{column}", 1))
    with pytest.raises(DataError, match=f"{column} names splits") as caught:
        _open(root / "m.csv")
    used, anew = _remedies(caught.value, "columns")
    assert {name: len(split) for name, split in _open(root / "m.csv", used).splits.items()}["test"] == 2
    assert _open(root / "m.csv", anew).own_splits == ()


@pytest.mark.parametrize("words", [("train", "train"), ("train", "other")])
def test_a_column_of_other_words_is_no_split(root: Path, words: tuple[str, str]) -> None:
    (root / "m.csv").write_text(_with_splits(words).replace(",split", ",batch", 1))
    assert _open(root / "m.csv").own_splits == ()


def test_a_path_is_listed_twice_as_a_relative_and_as_an_absolute_one(root: Path) -> None:
    (root / "m.csv").write_text(f"{_table()}{root / 'ant' / '0.jpg'},b\xe9e\n")
    with pytest.raises(DataError, match="listed twice") as caught:
        _open(root / "m.csv")
    assert caught.value.where == f"{root / 'm.csv'}:12"


def test_absolute_paths_of_a_folder_that_was_moved(root: Path) -> None:
    (root.parent / "m.csv").write_text(_table({path: str(root / path) for path in FILES}))
    root.rename(root.parent / "moved")
    with pytest.raises(DataError, match="10 of 10") as caught:
        _open(root.parent / "m.csv")
    (strip,) = _remedies(caught.value, "strip")
    assert str(root.parent / "moved") not in (caught.value.fix or "")
    folder = f"data.source.args.root={root.parent / 'moved'}"
    assert "holds ant/0.jpg" in (caught.value.fix or "")
    assert _labels(_open(root.parent / "m.csv", strip, folder)) == FILES


def test_a_few_images_that_are_gone_are_not_looked_for_elsewhere(root: Path) -> None:
    (root / "m.csv").write_text(_table())
    (root / "ant" / "0.jpg").unlink()
    with pytest.raises(DataError, match="1 of 10") as caught:
        _open(root / "m.csv")
    assert not _remedies(caught.value, "root") and "data.source.args.root" not in (caught.value.fix or "")
    (leave_out,) = _remedies(caught.value, "ignore")
    assert len(_labels(_open(root / "m.csv", leave_out))) == 9


def test_remedies_keep_the_columns_that_are_named(root: Path) -> None:
    rows = [f"{path},{label},{row}" for row, (path, label) in enumerate(FILES.items())]
    (root / "m.csv").write_text("\n".join(["filename,category,class_id", *rows]))
    columns = "data.source.args.columns={path: filename, label: category}"
    with pytest.raises(DataError, match="two class_ids") as caught:
        _open(root / "m.csv", columns)
    assert _labels(_open(root / "m.csv", columns, *_remedies(caught.value, "columns"))) == FILES


def _many(tmp_path: Path, count: int) -> list[str]:
    """A table of `count` rows, over a hundred files; an emptied row stands after the header."""
    for index in range(100):
        (tmp_path / f"{index}.png").write_bytes(b"image")
    for index in range(-(-count // 100)):
        (tmp_path / f"d{index}").symlink_to(".")
    lines = [f"d{row // 100}/{row % 100}.png,{row % 7},{row % 7}" for row in range(count)]
    return ["path,label,class_id", ",,", *lines]


def test_of_many_rows_each_has_its_label_and_its_place(tmp_path: Path) -> None:
    count = 5000
    lines = _many(tmp_path, count)
    file = tmp_path / "m.csv"
    file.write_text("\n".join(lines))
    found = manifest(str(file), about=["label"])
    assert list(found.keys) == [line.split(",")[0] for line in lines[2:]]
    assert np.asarray(found.labels).tolist() == [row % 7 for row in range(count)]
    assert list(found.about["label"]) == [str(row % 7) for row in range(count)]
    # what is wrong in a later row has its line: two for what stands before, and one as they count from 1
    for row, wrong, message in (
        (4500, f"d0/0.png,{4500 % 7},{4500 % 7}", "an image is listed twice"),
        (4501, f"d9999/0.png,{4501 % 7},{4501 % 7}", "1 of 5,000 listed images do not exist"),
        (4502, f"{lines[4504].split(',')[0]},other,{4502 % 7}", "one class_id has two labels"),
        (4503, f" ,{4503 % 7},{4503 % 7}", "the path is empty or not a string"),
        (4504, f"{lines[4506].split(',')[0]},,", "the label is empty or not a string"),
        (4505, "d0/0.png,1", "this row has 2 columns, the header has 3"),
    ):
        file.write_text("\n".join([*lines[: row + 2], wrong, *lines[row + 3 :]]))
        with pytest.raises(DataError) as caught:
            manifest(str(file))
        assert message in caught.value.what
        assert str(caught.value.where).endswith(f":{row + 3}")
    # what is left out is not looked at any more
    file.write_text("\n".join([*lines, "d9999/0.png,6,6"]))
    assert len(manifest(str(file), ignore=["d9999/*"]).keys) == count


def test_a_path_that_is_absolute_and_one_that_is_not_may_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    for other in (str(tmp_path / "a.png"), f"../{tmp_path.name}/a.png"):
        (tmp_path / "m.csv").write_text(f"path,label\na.png,x\n{other},y\n")
        with pytest.raises(DataError) as caught:
            manifest(str(tmp_path / "m.csv"))
        assert "an image is listed twice" in caught.value.what
        assert f"{other}, first in line 2" in str(caught.value.found)
