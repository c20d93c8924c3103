"""A planted folder: all that was planted is found, nothing else, and what is left trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.masks import write_images
from harness.planted import Planted, picture, plant
from harness.plugins import user_module
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.errors import ConfigError, DataError, LaunchError
from raycls.session.checking import each, looked
from raycls.session.checking.check import Checked, check
from raycls.session.checking.cleaned import cleaned, refuse, verify
from raycls.session.checking.page import page
from raycls.session.computing.parted import Parted


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(path: str, **source: Any) -> Run:
    return load_text(f"data: {{source: {{path: {path}}}, image_size: 8}}", "c.yaml", ()).run


def _check(run: Run) -> Checked:
    return check(run, (), lambda line: None)


def _keys(entries: list[dict[str, Any]]) -> set[frozenset[str]]:
    return {frozenset(image["key"] for image in entry["images"]) for entry in entries}


def _planted(facts: dict[str, Any], planted: Planted) -> None:
    assert {entry["key"] for entry in facts["unreadable"]} == planted.bad
    assert _keys(facts["exact_duplicates"]) == planted.exact | planted.leaks | planted.conflicts
    near = {frozenset(i["key"] for i in entry["images"]): entry["kinds"] for entry in facts["near_duplicates"]}
    assert near == {names: [kind] for names, kind in planted.near.items()}
    assert _keys(facts["leaks"]) == planted.leaks
    assert _keys(facts["label_conflicts"]) == planted.conflicts


def test_all_that_is_planted_is_found_and_what_is_left_is_clean(tmp_path: Path) -> None:
    planted = plant(tmp_path / "p", each=30)
    checked = _check(_run("p"))
    facts = checked.facts()
    _planted(facts, planted)
    assert not facts["clean"]
    assert facts["formats"] == {"png": 60 + 20 - 9 + 12 + 5 + 3 + 6, "jpeg": 9, "webp": 3}
    assert facts["splits"]["train"]["class_counts"].keys() == {"a", "b"}
    file = tmp_path / "m.csv"
    found = cleaned(checked, file)
    assert found.left_out == {"unreadable": 9, "under two labels": 6, "duplicates": 12 + 18 + 5}
    file.write_text(found.text)
    verify(checked, file)
    left = open_dataset(load_text("data: {source: {name: manifest, path: m.csv}}", "c.yaml", ()).run.data)
    keys = {name: {key.removeprefix("p/") for key in split.keys} for name, split in left.splits.items()}
    for name, split in left.splits.items():
        own = checked.dataset.splits[name]
        labels = dict(zip(own.keys, (own.label(row) for row in range(len(own))), strict=True))
        assert {key: split.label(row) for row, key in enumerate(k.removeprefix("p/") for k in split.keys)} == {
            key: labels[key] for key in keys[name]
        }
    leaked = {key for names in planted.leaks for key in names}
    assert {key for key in leaked if key.startswith("val")} <= keys["val"]
    assert not {key for key in leaked if key.startswith("train")} & keys["train"]
    again = _check(load_text("data: {source: {name: manifest, path: m.csv}}", "c.yaml", ()).run)
    assert again.clean
    text = page(checked, [("images", "1", False)], "about").decode()
    assert text.count("<h3>") == 20 + 18 + 5 + 3
    assert "<script" not in text


@pytest.mark.slow
def test_an_image_that_ends_its_process_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import multiprocessing, os
from harness.planted import picture
import numpy as np
from raycls.data.samples import Keys, Samples

class Reader:
    def read(self, index):
        if index == 7:
            raise LookupError("no such row")
        if index == 12 and multiprocessing.parent_process() is not None:
            os._exit(9)  # as a decoder that crashes
        return np.random.default_rng(index % 20).integers(0, 256, (9, 9, 3), np.uint8)

def source(path):
    splits = {"train": np.arange(20), "val": np.arange(20, 30)}
    return Samples(("a", "b"), np.arange(30) % 2, Keys(map(str, range(30))), Reader(), splits)
""".replace("from harness.planted import picture\n", "")
    monkeypatch.setattr(each, "_FEW", 0)
    monkeypatch.setattr(each, "_AT_ONCE", 6)
    with user_module(tmp_path, "source_to_look_at", source) as name:
        facts = _check(load_text(f"data: {{source: {{name: '{name}:source'}}}}", "c.yaml", ()).run).facts()
    assert [(entry["key"], entry["what"]) for entry in facts["unreadable"]] == [
        ("7", facts["unreadable"][0]["what"]),
        ("12", "decoding an image ended the process"),
    ]
    assert "LookupError: no such row" in facts["unreadable"][0]["found"]
    assert facts["formats"] == {"pixels": 28}
    assert _keys(facts["exact_duplicates"]) == {frozenset((str(n), str(n + 20))) for n in range(10) if n != 7}
    assert len(facts["leaks"]) == 9


def test_exif_orientation_and_sizes_are_told(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "p" / label).mkdir(parents=True)
        for number in range(5):
            image = picture(100 * (label == "b") + number, (30 + number, 20))
            exif = Image.Exif()
            exif[0x0112] = (1, 6)[number == 4]
            image.save(tmp_path / "p" / label / f"{number}.jpg", exif=exif)
    facts = _check(_run("p")).facts()
    assert facts["exif_orientation"] == {"6": 2}
    assert facts["sizes"] == {"min": [20, 20], "median": [31.0, 20.0], "max": [33, 34], "different": 5}
    assert facts["clean"]


def test_no_manifest_can_name_what_is_no_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=np.arange(8) % 2)
    run = load_text("data: {source: {name: arrays, path: d.npz}}", "c.yaml", ()).run
    with pytest.raises(ConfigError, match="no files"):
        check(run, (), lambda line: None, lambda dataset: refuse(dataset.splits, tmp_path / "m.csv"))


def test_a_manifest_that_could_not_be_trained_on_is_refused(tmp_path: Path) -> None:
    for label in "abc":
        for split in ("train", "val"):
            (tmp_path / "p" / split / label).mkdir(parents=True)
            for number in range(3):
                picture(ord(label) * 10 + number + 5 * (split == "val")).save(
                    tmp_path / "p" / split / label / f"{number}.png"
                )
    for number in range(3):
        (tmp_path / f"p/train/c/{number}.png").write_bytes(b"")
    checked = _check(_run("p"))
    (tmp_path / "m.csv").write_text(cleaned(checked, tmp_path / "m.csv").text)
    with pytest.raises(DataError, match="classes that the train split does not have"):
        verify(checked, tmp_path / "m.csv")


def test_a_manifest_elsewhere_names_the_files_by_their_whole_paths(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for label in "ab":
        (tmp_path / "p" / label).mkdir(parents=True)
        for number in range(6):
            picture(ord(label) * 10 + number).save(tmp_path / "p" / label / f"{number}, odd.png")
    checked = _check(_run("p"))
    (tmp_path / "sub/m.jsonl").write_text(cleaned(checked, Path("sub/m.jsonl")).text)
    os.chdir(tmp_path / "sub")
    left = open_dataset(load_text("data: {source: {name: manifest, path: m.jsonl}}", "c.yaml", ()).run.data)
    for name, split in left.splits.items():
        own = checked.dataset.splits[name]
        assert [split.locate(row) for row in range(len(split))] == [own.locate(row) for row in range(len(own))]
        assert split.labels.tolist() == own.labels.tolist()


class _Node:
    """A node of a cluster, in this process: the parts come in another order. `hidden` is a file that it does not see.
    The real Ray: tests/e2e."""

    def __init__(self, hidden: str | None = None) -> None:
        self.hidden = hidden

    @contextmanager
    def join(self, run: Run, say: Callable[[str], None]) -> Iterator[_Node]:
        yield self

    def parts(self, work: Parted, numbers: Sequence[int]) -> Iterator[tuple[int, bytes, str]]:
        with work.computing() as compute:
            for number in reversed(numbers):
                if self.hidden:
                    os.rename(self.hidden, "elsewhere")
                data = compute(number)
                if self.hidden:
                    os.rename("elsewhere", self.hidden)
                yield number, data, "node-7"


def test_a_cluster_finds_what_this_machine_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "p", each=30)
    monkeypatch.setattr(looked, "_PART", 17)
    run = _run("p")
    here, there = _check(run), check(run, (), lambda line: None, join=_Node().join)
    assert there.facts() == here.facts()
    assert page(there, [], "about") == page(here, [], "about")


def test_a_file_that_a_node_alone_does_not_see_is_no_unreadable_image(tmp_path: Path) -> None:
    plant(tmp_path / "p", each=30)
    hidden = str(tmp_path / "p/train/b/003.png")
    gone = tmp_path / "p/train/b/002.png"
    told = check(_run("p"), (), lambda line: None, lambda dataset: gone.unlink(), _Node().join).facts()
    assert str(gone) in {entry["path"] for entry in told["unreadable"]}, "this machine does not see it either"
    with pytest.raises(LaunchError, match="a node does not see an image") as caught:
        check(_run("p"), (), lambda line: None, join=_Node(hidden).join)
    assert caught.value.where == hidden
    assert "on the node node-7" in (caught.value.found or "")


def test_parts_cover_every_image_once_and_say_which_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "p", each=30)
    monkeypatch.setattr(looked, "_PART", 17)
    splits = open_dataset(_run("p").data).splits
    parts = looked.Parts(looked.Work(splits), ".")
    found = [parts.task(number) for number in range(len(parts))]
    assert [(name, row) for name, split in splits.items() for row in range(len(split))] == [
        (task.split, row) for task in found for row in range(task.start, task.stop)
    ]
    assert parts.place(1) == f"images 18 to 34 of train: from {splits['train'].key(17)} on"
    monkeypatch.setattr(looked, "_MOST_PARTS", 2)
    assert len(looked.Parts(looked.Work(splits), ".")) <= 2 + len(splits)


def test_what_no_manifest_can_list_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    plant(tmp_path / "p", each=30)
    odd = os.fsencode(tmp_path / "p/train/a") + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write((tmp_path / "p/train/a/003.png").read_bytes())
    assert not check(_run("p"), (), lambda line: None).clean
    with pytest.raises(DataError, match="no UTF-8") as caught:
        check(_run("p"), (), lambda line: None, lambda dataset: refuse(dataset.splits, Path("m.csv")))
    assert "\\udcff.png" in (caught.value.found or "")
    write_images(tmp_path / "cells", {"train": 4, "val": 2})
    text = "data: {source: {name: masks, path: cells, args: {classes: [background, cell]}}}\n"
    text += "task: {name: segmentation}\nevaluate: {metric: dice}\n"
    masks = load_text(text, "c.yaml", ()).run
    assert check(masks, (), lambda line: None).unreadable == {}
    with pytest.raises(ConfigError, match="parts beside their images"):
        check(masks, (), lambda line: None, lambda dataset: refuse(dataset.splits, Path("m.csv")))
