"""What the words of a prediction name: files, folders, globs, manifests, arrays, configs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raycls.errors import ConfigError, DataError
from raycls.session.predictions.inputs import Inputs, list_inputs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.png", "p/a.JPG", "p/deep/down/c.png", "other.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (len(name), 0, 0)).save(path, "PNG")
    return tmp_path


def _list(*words: str) -> tuple[list[str], Inputs, list[str]]:
    said: list[str] = []
    found = list_inputs(words, said.append)
    return list(found.keys), found, said


def test_a_folder_is_searched_to_any_depth_and_sorted() -> None:
    assert _list("p")[0] == ["p/a.JPG", "p/b.png", "p/deep/down/c.png"]


def test_words_keep_their_order_and_each_file_comes_once() -> None:
    names, _, said = _list("other.png", "p/deep", "p", "./p/b.png")
    assert names == ["other.png", "p/deep/down/c.png", "p/a.JPG", "p/b.png"]
    assert said == ["2 files named more than once: predicted once"]


def test_files_that_are_not_named_like_images_are_told_and_hidden_ones_are_not(here: Path) -> None:
    for name in ("p/notes.txt", "p/.hidden.png", "p/.git/x.png", "p/Thumbs.db", "p/deep/data.csv"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(b"x")
    names, _, said = _list("p")
    assert names == ["p/a.JPG", "p/b.png", "p/deep/down/c.png"]
    assert said == ["left out of p: 2 files not named like images: p/deep/data.csv, p/notes.txt"]


def test_a_link_back_up_is_followed_no_further(here: Path) -> None:
    (here / "p/deep/up").symlink_to(here / "p")
    assert len(_list("p")[0]) == 3


def test_what_is_named_like_an_image_and_is_no_file_is_not_waited_for(here: Path) -> None:
    os.mkfifo(here / "p/pipe.png")
    (here / "p/deep/gone.png").symlink_to(here / "nothing")
    (here / "m.csv").write_text("path\n/dev/zero\np\n")
    names, found, _ = _list("p", "m.csv")
    assert names == ["p/a.JPG", "p/b.png", "p/deep/down/c.png", "p/deep/gone.png", "p/pipe.png", "/dev/zero", "p"]
    for row, reason in ((3, "No such file"), (4, "a pipe or a device"), (5, "a device"), (6, "a folder")):
        with pytest.raises(DataError) as caught:
            found.reader.read(row)
        assert reason in (caught.value.found or "")


def test_globs_name_files_and_folders() -> None:
    assert _list("p/*.png")[0] == ["p/b.png"]
    assert _list("p/**/*.png")[0] == ["p/b.png", "p/deep/down/c.png"]
    assert _list("p/**")[0] == ["p/a.JPG", "p/b.png", "p/deep/down/c.png"]
    assert _list("p/d*")[0] == ["p/deep/down/c.png"]


def test_a_glob_names_links_that_lead_nowhere_as_a_folder_does(here: Path) -> None:
    (here / "p/gone.png").symlink_to(here / "nothing")
    os.mkfifo(here / "p/pipe.png")
    assert _list("p/*.png")[0] == ["p/b.png", "p/gone.png", "p/pipe.png"]


def test_a_file_with_the_characters_of_a_glob_is_itself(here: Path) -> None:
    shutil.copy(here / "other.png", here / "a[1].png")
    assert _list("a[1].png")[0] == ["a[1].png"]


def test_a_manifest_needs_no_labels_and_its_paths_stay_as_they_are_written(here: Path) -> None:
    (here / "lists").mkdir()
    (here / "lists/m.csv").write_text("id;path\n1;../p/b.png\n2;missing.png\n3;../p/b.png\n")
    (here / "lists/m.jsonl").write_text(json.dumps({"image": str(here / "other.png"), "label": None}) + "\n")
    names, found, said = _list("lists/m.csv", "lists/m.jsonl")
    assert names == ["../p/b.png", "missing.png", "../p/b.png", str(here / "other.png")]
    assert found.reader.read(0) == found.reader.read(2) == (here / "p/b.png").read_bytes()
    assert found.reader.read(3) == (here / "other.png").read_bytes()
    with pytest.raises(DataError) as caught:
        found.reader.read(1)
    assert caught.value.where == str(here / "lists/missing.png")
    assert said == []


@pytest.mark.parametrize("text", ['{"images": [{"file_name": "p/b.png"}], "annotations": []}', '[{"path": "p/b.png"}]'])
def test_a_manifest_may_be_json(here: Path, text: str) -> None:
    (here / "m.json").write_text(text)
    assert _list("m.json")[0] == ["p/b.png"]


@pytest.mark.parametrize(
    ("text", "where"), [("name,label\nx,y\n", ":2"), ("path\n\n", ""), ("path,label\na.png,x\n,y\n", ":3")]
)
def test_a_manifest_without_paths_is_refused(here: Path, text: str, where: str) -> None:
    (here / "m.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        _list("m.csv")
    assert caught.value.where == f"m.csv{where}"
    assert "data.source.args." not in (caught.value.fix or "")  # which cannot be typed here


def test_a_config_says_how_its_data_is_read(here: Path) -> None:
    (here / "lists").mkdir()
    (here / "lists/m.csv").write_text("photo,kind\nb.png,x\na.JPG,x\n")
    (here / "c.yaml").write_text(
        "data: {source: {name: manifest, path: lists/m.csv, args: {root: p, columns: {path: photo, label: kind}}}}\n"
    )
    names, found, _ = _list("c.yaml", "other.png")
    assert names == ["b.png", "a.JPG", "other.png"]
    assert [found.reader.read(row) for row in range(3)] == [
        (here / name).read_bytes() for name in ("p/b.png", "p/a.JPG", "other.png")
    ]


def test_arrays_are_images_by_their_positions(here: Path) -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    np.savez(here / "d.npz", images=images, labels=np.array([0, 1]))
    names, found, _ = _list("other.png", "d.npz")
    assert len(names) == 3
    assert np.array_equal(np.asarray(found.reader.read(2)), images[1])


def test_a_name_that_is_no_unicode_is_read(here: Path) -> None:
    name = os.fsdecode(b"p/\xff.png")
    shutil.copy(here / "other.png", name)
    names, found, _ = _list(name)
    assert names == [name]
    assert found.reader.read(0) == (here / "other.png").read_bytes()


def test_the_fingerprint_tells_other_names_sizes_and_times(here: Path) -> None:
    first = _list("p")[1].fingerprint()
    assert _list("p")[1].fingerprint() == first
    assert _list("p", "other.png")[1].fingerprint() != first
    os.utime(here / "p/b.png", ns=(1, 1))
    assert _list("p")[1].fingerprint() != first


def test_what_is_not_there_is_refused() -> None:
    for word in ("none.png", "none/*.png", "none"):
        with pytest.raises(ConfigError) as caught:
            _list(word)
        assert caught.value.where == f"INPUT {word}"
