"""Every image that training would stop at is named in one pass, and left out by what the report prints."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from harness.plugins import user_module
from PIL import Image

from raycls.cli import image_check
from raycls.cli.image_check import Checked, check, check_folder, look, report
from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.errors import ConfigError
from raycls.session.checking import each

ODD = "odd [1]*?.png"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)


def _make(bad: dict[str, bytes | None], each: int = 6) -> None:
    """`photos/train|val/a|b/0.png ...`, of which `bad` have these bytes, or half of their own."""
    for split in ("train", "val"):
        for name in "ab":
            folder = Path("photos") / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (9, 8), (number, 0, 0)).save(folder / f"{number}.png")
    for path, data in bad.items():
        file = Path("photos") / path
        file.write_bytes(file.read_bytes()[:45] if data is None else data)


BAD = {"train/a/1.png": None, "train/a/*.png": b"", f"val/b/{ODD}": b"<html>", "val/b/it's.png": b"GIF89a"}


def _found(checked: Checked) -> list[str]:
    return [bad.key for bad in checked.bad]


def _run(*overrides: str) -> Run:
    return load_text("data: {source: {path: photos}, image_size: 8}", "run.yaml", overrides).run


def _option(lines: list[str]) -> str:
    """The override at the end of the report, as a shell reads it."""
    return shlex.split(lines[-1])[-1]


def test_all_bad_files_of_every_split_in_one_pass() -> None:
    _make(BAD)
    checked = check_folder("photos")
    assert _found(checked) == ["train/a/*.png", "train/a/1.png", "val/b/it's.png", f"val/b/{ODD}"]
    assert checked.counts == {"train": 13, "val": 14}
    lines = report(checked)
    assert "checked 27 images (13 train, 14 val): 4 cannot be used" in lines
    assert sorted(line.split() for line in lines[1:3]) == [
        ["2", "a", "sample", "is", "a", "damaged", "image"],
        ["2", "a", "sample", "is", "not", "an", "image"],
    ]
    assert f"{Path.cwd()}/photos/train/a/*.png: this is an empty file (0 bytes)" in lines


def test_what_the_report_prints_leaves_out_these_files_alone() -> None:
    _make(BAD)
    before = open_dataset(_run().data)
    option = _option(report(check(_run())))
    after = open_dataset(_run(option).data)
    for name in ("train", "val"):
        gone = set(before.splits[name].keys) - set(after.splits[name].keys)
        assert gone == {path for path in BAD if path.startswith(name)}
    assert report(check(_run(option))) == ["checked 23 images (11 train, 12 val): all can be decoded"]
    assert not check_folder("photos", overrides=[option]).bad


def test_patterns_that_are_there_already_stay() -> None:
    _make(BAD)
    checked = check(_run("data.source.args.ignore=[it's.png]"))
    assert not check(_run(_option(report(checked)))).bad


def test_many_files_are_listed_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    _make({f"train/{name}/{number}.png": b"text" for name in "ab" for number in range(8)}, each=10)
    lines = report(check(_run()))
    assert Path("bad_images.txt").read_text().splitlines()[1:3] == ["train/a/0.png", "train/a/1.png"]
    assert _option(lines) == "data.source.args.ignore_file=bad_images.txt"
    assert not check(_run(_option(lines))).bad
    Path("photos/train/a/8.png").write_bytes(b"")  # a week later
    monkeypatch.setattr(image_check, "_NAMED", 0)
    lines = report(check(_run(_option(lines))))
    assert _option(lines) == "data.source.args.ignore_file=bad_images-2.txt"
    listed = Path("bad_images-2.txt").read_text().splitlines()[1:]
    assert len(listed) == 17
    assert not check_folder("photos", overrides=[_option(lines)]).bad


def test_a_class_that_would_lose_all_its_images_is_told() -> None:
    _make({f"val/a/{number}.png": b"" for number in range(3)}, each=3)
    lines = report(check_folder("photos"))
    assert "no image of a (val) would be left" in lines


def test_what_only_the_config_knows() -> None:
    _make({})
    Image.new("RGB", (4000, 1)).save("photos/val/a/strip.png")
    Image.new("RGB", (5, 5)).save("photos/train/b/small.png")
    assert not check_folder("photos").bad
    overrides = ("data.max_pixels=5000", "augment.train=[{random_crop: {size: 8}}]")
    checked = check(_run(*overrides))
    assert _found(checked) == ["train/b/small.png", "val/a/strip.png"]
    assert not check(_run(*overrides, _option(report(checked)))).bad


def test_an_operation_that_suits_no_image_is_told_once_and_nothing_left_out() -> None:
    """24 images of 9x8 pixels, 12 of them in train; the crop of the other splits fits."""
    _make({"train/a/1.png": b""})
    lines = report(checked := check(_run("augment.train=[horizontal_flip, {random_crop: {size: 64}}]")))
    assert (checked.failed, _found(checked), checked.emptied) == ((11,), ["train/a/1.png"], ())
    told = [line for line in lines if "augment.train[1]" in line]
    assert "fails on 11 images" in told[0]
    assert "8 x 9 (height x width)" in told[0]
    assert "put a resize before it, or give it padding" in told[1]
    assert shlex.split(lines[-1])[-1] == "data.source.args.ignore=[train/a/1.png]"
    assert not list(Path().glob("bad_images*"))
    for fixed in ("{resize: {size: [64, 64]}}, {random_crop: {size: 64}}", "{random_crop: {size: 64, padding: 32}}"):
        assert not check(_run(f"augment.train=[{fixed}]")).unfit
    both = check(_run("augment.eval=[{random_crop: {size: 64}}]", "data.source.args.ignore=train/a/1.png"))
    assert ([bad.entry for bad in both.unfit], both.failed, both.bad) == (["augment.eval[0]"], (12,), ())
    assert "ignore" not in " ".join(report(both))


_SOURCE = """
import io, multiprocessing, os
import numpy as np
from PIL import Image
from raycls.data.samples import Keys, Samples

class Reader:
    def read(self, index):
        if index == 7:
            raise LookupError("no such row")
        if index == 12 and multiprocessing.parent_process() is not None:
            os._exit(9)  # as a decoder that crashes
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (index, 0, 0)).save(buffer, "png")
        return buffer.getvalue()

def source(path):
    splits = {"train": np.arange(20), "val": np.arange(20, 30)}
    return Samples(("a", "b"), np.arange(30) % 2, Keys(map(str, range(30))), Reader(), splits)
"""


def test_processes_find_the_same_and_survive_one_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with user_module(tmp_path, "source_to_check", _SOURCE) as name:
        run = _run(f"data.source.name={name}:source", f"augment.train=[{name}:source]", f"augment.eval=[{name}:source]")
        assert _found(check(run)) == ["7"]
        monkeypatch.setattr(each, "_FEW", 0)
        monkeypatch.setattr(each, "_AT_ONCE", 6)
        checked = check(run)
    assert _found(checked) == ["7", "12"]
    assert checked.bad[0].found.startswith("LookupError: no such row")
    assert "ended the process" in checked.bad[1].what
    assert "cannot leave out single ones" in report(checked)[-1]


def test_a_manifest_is_checked_through_a_config() -> None:
    Path("m.csv").write_text("path,label\na/0.png,a\n")
    with pytest.raises(ConfigError, match="neither a folder") as caught:
        look("m.csv", ignore=(), overrides=())
    assert "--check data.source.name=manifest data.source.path=m.csv" in (caught.value.fix or "")
