"""Folders of images: what is a class, what is a split, and what has no place there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from raycls.data.formats.folder import folder
from raycls.errors import DataError


def _make(root: Path, *names: str) -> Path:
    """Empty files; a source looks at names alone."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def _by_key(root: Path, **args: object) -> dict[str, str]:
    samples = folder(root, **args)
    return {key: samples.classes[label] for key, label in zip(samples.keys, samples.labels, strict=True)}


def test_a_class_per_directory(tmp_path: Path) -> None:
    _make(tmp_path, "b/2.JPG", "b/deep/down/1.png", "a/x.webp", "a/y.tiff", "B/z.gif")
    samples = folder(tmp_path)
    assert list(samples.classes) == ["B", "a", "b"]
    assert list(samples.keys) == ["B/z.gif", "a/x.webp", "a/y.tiff", "b/2.JPG", "b/deep/down/1.png"]
    assert np.asarray(samples.labels).tolist() == [0, 1, 1, 2, 2]
    assert samples.splits is None
    assert samples.reader.read(0) == b""


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    _make(tmp_path, "train/a/1.png", "train/b/2.png", "train/b/3.png", f"{val}/b/4.png", "test/a/5.png")
    samples = folder(tmp_path)
    assert list(samples.classes) == ["a", "b"]
    splits = {name: sorted(samples.keys[int(row)] for row in rows) for name, rows in (samples.splits or {}).items()}
    assert splits == {
        "train": ["train/a/1.png", "train/b/2.png", "train/b/3.png"],
        "val": [f"{val}/b/4.png"],
        "test": ["test/a/5.png"],
    }
    assert _by_key(tmp_path)["test/a/5.png"] == "a"


def test_train_beside_other_classes_is_a_class(tmp_path: Path) -> None:
    _make(tmp_path, "train/1.png", "bus/2.png")
    assert _by_key(tmp_path) == {"train/1.png": "train", "bus/2.png": "bus"}


def test_litter_and_hidden_entries_are_left_out(tmp_path: Path) -> None:
    _make(
        tmp_path,
        "a/1.png",
        "b/1.png",
        ".git/config",
        "a/.DS_Store",
        "a/Thumbs.db",
        "b/desktop.ini",
        ".note",
        "a/.x/1.txt",
    )
    assert list(_by_key(tmp_path)) == ["a/1.png", "b/1.png"]


def test_ignore_takes_names_and_paths(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", "a/notes.txt", "README.md", "drafts/9.png", "b/old/2.png")
    assert list(_by_key(tmp_path, ignore=["*.txt", "README.md", "drafts", "b/old"])) == ["a/1.png", "b/1.png"]


def _refused(root: Path, message: str, **args: object) -> DataError:
    with pytest.raises(DataError, match=message) as caught:
        folder(root, **args)
    return caught.value


def test_strangers_are_named_and_counted(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", *(f"a/{index}.txt" for index in range(7)))
    error = _refused(tmp_path, "among the images")
    assert error.found == "a/0.txt, a/1.txt, a/2.txt, a/3.txt, a/4.txt and 2 more"
    assert 'data.source.args.ignore=["*.txt"]' in (error.fix or "")
    assert len(folder(tmp_path, ignore=["*.txt"]).keys) == 2


def test_loose_files(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", "stray.png")
    assert _refused(tmp_path, "beside the class folders").found == "stray.png"
    (tmp_path / "stray.png").unlink()
    _make(tmp_path, "labels.csv")
    assert 'ignore=["*.csv"]' in (_refused(tmp_path, "beside the class folders").fix or "")


def test_loose_files_in_a_split(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png", "test/a/1.png", "test/2.png")
    assert _refused(tmp_path, "beside the class folders").found == "test/2.png"


def test_empty_places(tmp_path: Path) -> None:
    assert _refused(tmp_path, "no class folders").where == str(tmp_path)
    _make(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c" / "d").mkdir(parents=True)
    assert _refused(tmp_path, "hold no image").found == "c"
    assert _refused(tmp_path / "gone", "cannot be read").found == "No such file or directory"
    assert _refused(tmp_path / "a" / "1.png", "cannot be read").found == "Not a directory"


def test_an_empty_split_folder(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png")
    (tmp_path / "test").mkdir()
    assert _refused(tmp_path, "split folder holds no class").where == str(tmp_path / "test")


def test_splits_mixed_with_classes(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png", "val/a/1.png", "extra/a/1.png")
    error = _refused(tmp_path, "mixes split folders")
    assert 'ignore=["extra"]' in (error.fix or "")
    assert set((folder(tmp_path, ignore=["extra"]).splits) or ()) == {"train", "val"}


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    _refused(tmp_path, "Two folders stand for one split")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    _make(tmp_path / "far", "1.png", "more/2.png")
    root = _make(tmp_path / "data", "a/0.png")
    (root / "b").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "more" / "up").symlink_to(tmp_path / "far")
    (root / "a" / "link.png").symlink_to(tmp_path / "far" / "1.png")
    assert list(_by_key(root)) == ["a/0.png", "a/link.png", "b/1.png", "b/more/2.png"]


def test_a_link_back_to_the_root_brings_no_images_of_other_classes(tmp_path: Path) -> None:
    root = _make(tmp_path / "flat", "a/0.png", "b/1.png")
    (root / "a" / "up").symlink_to(root)
    assert list(_by_key(root)) == ["a/0.png", "b/1.png"]
    root = _make(tmp_path / "split", "train/a/0.png", "train/b/1.png", "val/a/2.png")
    (root / "train" / "a" / "up").symlink_to(root / "train")
    (root / "train" / "b" / "top").symlink_to(root)
    assert list(_by_key(root)) == ["train/a/0.png", "train/b/1.png", "val/a/2.png"]


def test_entries_that_are_no_files(tmp_path: Path) -> None:
    """A pipe named like an image would be read for ever."""
    _make(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "dead.png").symlink_to("nowhere.png")
    assert _refused(tmp_path, "are no files").found == "a/pipe.png, b/dead.png"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png")
    name = os.fsdecode(b"\xe9.png")
    (tmp_path / "a" / name).write_bytes(b"here")
    samples = folder(tmp_path)
    index = list(samples.keys).index(f"a/{name}")
    assert samples.reader.read(index) == b"here"
