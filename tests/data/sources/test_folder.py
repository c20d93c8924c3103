"""Folders of images: what is a class, what is a split, and what has no place there."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from raycls.config.overrides import read_override
from raycls.data.sources.folder import folder
from raycls.errors import DataError
from raycls.progress import Progress, listening


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


def _left_out(error: DataError) -> list[str]:
    """The patterns of the override that the remedy prints, as a shell and raycls read it."""
    word = next(word for word in shlex.split(error.fix or "") if "ignore=" in word)
    return read_override(word).values["data"]["source"]["args"]["ignore"]


def test_strangers_are_named_and_all_of_them_are_left_out(tmp_path: Path) -> None:
    names = ["a/notes.txt", "b/it's [1] $x.txt", "b/notes.txt", "b/raw/drafts", "b/-a.md", "b/*.txt"]
    _make(tmp_path, "a/1.png", "b/1.png", "a/raw/drafts.png", *names)
    error = _refused(tmp_path, "among")
    assert error.found == ", ".join(sorted(names)[:5]) + " and 1 more"
    kept = folder(tmp_path, ignore=_left_out(error))
    assert list(kept.keys) == ["a/1.png", "a/raw/drafts.png", "b/1.png"]
    _make(tmp_path, "c/notes.txt", "c/1.png")  # a name that was left out elsewhere
    assert _refused(tmp_path, "among", ignore=_left_out(error)).found == "c/notes.txt"


def test_what_was_left_out_before_stays_in_the_remedy(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", "a/x.csv", "a/notes.txt", "top.md")
    first = _left_out(_refused(tmp_path, "beside", ignore=["*.csv"]))
    assert first == ["*.csv", "/top.md"]
    second = _left_out(_refused(tmp_path, "among", ignore=first))
    assert second == ["*.csv", "/top.md", "a/notes.txt"]
    assert list(folder(tmp_path, ignore=second).keys) == ["a/1.png", "b/1.png"]


def test_many_strangers_are_left_out_by_a_pattern_with_their_number(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", "top.txt", *(f"{label}/{index}.{kind}" for index in range(60)
        for label, kind in (("a", "txt"), ("b", "json"))))  # fmt: skip
    error = _refused(tmp_path, "among", ignore="/top.txt")
    assert _left_out(error) == ["/top.txt", "*.json", "*.txt"]
    assert "120 files" in str(error.fix)
    assert len(folder(tmp_path, ignore=_left_out(error)).keys) == 2


@pytest.mark.parametrize("kept", ["b/old.txt/1.png", "b.txt/1.png"])
def test_a_pattern_that_would_take_images_with_it_is_not_proposed(tmp_path: Path, kept: str) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", kept, *(f"a/{index}.txt" for index in range(60)))
    error = _refused(tmp_path, "among")
    assert "ignore=" not in str(error.fix)
    (tmp_path / ".list").write_text("".join(f"a/{index}.txt\n" for index in range(60)))
    assert "data.source.args.ignore_file" in str(error.fix)
    assert len(folder(tmp_path, ignore_file=str(tmp_path / ".list")).keys) == 3


def test_loose_files(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png", "stray.png")
    assert _refused(tmp_path, "beside").found == "stray.png"
    (tmp_path / "stray.png").unlink()
    _make(tmp_path, "labels.csv", "a/labels.csv")
    error = _refused(tmp_path, "beside")
    assert _left_out(error) == ["/labels.csv"]
    assert _refused(tmp_path, "among", ignore=_left_out(error)).found == "a/labels.csv"


def test_loose_files_in_a_split(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png", "test/a/1.png", "test/2.png")
    assert _refused(tmp_path, "beside").found == "test/2.png"


def test_empty_places(tmp_path: Path) -> None:
    assert _refused(tmp_path, "no class folders").where == str(tmp_path)
    _make(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c" / "d").mkdir(parents=True)
    assert _refused(tmp_path, "hold no image").found == "c"
    assert _refused(tmp_path / "gone", "cannot read").found == "No such file or directory"
    assert _refused(tmp_path / "a" / "1.png", "cannot read").found == "Not a directory"


def test_an_empty_split_folder(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png")
    (tmp_path / "test").mkdir()
    assert _refused(tmp_path, "no class folders").where == str(tmp_path / "test")


def test_splits_mixed_with_classes(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png", "val/a/1.png", "extra/a/1.png", "more stuff/a/1.png", "train/extra/1.png")
    error = _refused(tmp_path, "mixes split folders")
    assert _left_out(error) == ["/extra", "/more stuff"]
    kept = folder(tmp_path, ignore=_left_out(error))
    assert set(kept.splits or ()) == {"train", "val"}
    assert list(kept.keys) == ["train/a/1.png", "train/extra/1.png", "val/a/1.png"]


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    _make(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    assert _refused(tmp_path, "one split").found == "train (train), val (val), valid (val)"


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
    assert _refused(tmp_path, "not files").found == "a/pipe.png, b/dead.png"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.png", "b/1.png")
    name = os.fsdecode(b"\xe9.png")
    (tmp_path / "a" / name).write_bytes(b"here")
    samples = folder(tmp_path)
    index = list(samples.keys).index(f"a/{name}")
    assert samples.reader.read(index) == b"here"


def test_a_large_folder_is_counted_on_the_way(tmp_path: Path) -> None:
    _make(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(1100)))
    heard: list[Progress] = []
    with listening(heard.append):
        folder(tmp_path)
    counts = [one.done or 0 for one in heard]
    assert counts == sorted(counts) and 1000 in counts and counts[-1] >= 2000
    assert {one.unit for one in heard} == {"files"}
