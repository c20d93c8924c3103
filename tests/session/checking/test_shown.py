"""The contact sheet: which images it has, where they are, and what stands beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness.phantom import CLASSES, write_data
from harness.planted import picture

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.making.sample import made
from raycls.data.source import open_dataset
from raycls.errors import ConfigError
from raycls.session.checking.shown import Asked, Shown, show
from raycls.session.prepare import plan_of
from raycls.session.setup import make_arrays


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for number, label in enumerate("abc" * 10):
        (tmp_path / "p" / label).mkdir(parents=True, exist_ok=True)
        picture(number, (144, 144)).save(tmp_path / "p" / label / f"{number:02}.png")
    text = "data: {source: {path: p}, image_size: 144, batch_size: 4}\nscale: {workers: 0}\n"
    return load_text(text, "c.yaml", ()).run


def _cell(shown: Shown, row: int, column: int) -> np.ndarray:
    left, top, right, bottom = shown.sheet.boxes[row][column]
    return np.asarray(shown.sheet.image)[top:bottom, left:right]


def test_a_row_for_each_class_of_images_that_a_seed_chooses(run: Run) -> None:
    dataset = open_dataset(run.data)
    split = dataset.splits["train"]
    shown = show(run, Asked("train", 3, 0), print)
    assert (shown.images, shown.classes) == (9, 3)
    images = [(split.label(row), np.asarray(split.image(row))) for row in range(len(split))]
    found = []
    for row, label in enumerate("abc"):
        for column in range(3):
            cell = _cell(shown, row, column)
            match = [n for n, (of, pixels) in enumerate(images) if of == label and np.array_equal(cell, pixels)]
            assert len(match) == 1
            found += match
    assert len(set(found)) == 9
    assert np.array_equal(_cell(show(run, Asked("train", 3, 0), print), 1, 2), _cell(shown, 1, 2))
    other = show(run, Asked("train", 3, 1, ("b",)), print)
    assert len(other.sheet.boxes) == 1


def test_beside_each_image_stands_what_the_network_gets_of_it(run: Run) -> None:
    dataset = open_dataset(run.data)
    split, arrays = dataset.splits["train"], make_arrays(run, dataset.classes, plan_of(run, dataset))
    shown = show(run, Asked("train", 2, 0, augmented=True, epoch=3), print)
    for row in range(3):
        for column in (0, 2):
            original = _cell(shown, row, column)
            (index,) = (n for n in range(len(split)) if np.array_equal(original, np.asarray(split.image(n))))
            expected = made(arrays, split, index, (run.run.seed, 3, index), train=True)["image"]
            assert np.array_equal(_cell(shown, row, column + 1), expected)


def test_another_image_takes_the_place_of_a_bad_one(run: Run, tmp_path: Path) -> None:
    split = open_dataset(run.data).splits["test"]
    (tmp_path / "p" / split.key(0)).write_bytes(b"")
    said: list[str] = []
    label = split.label(0)
    shown = show(run, Asked("test", 9, 0, (label,)), said.append)
    assert shown.images == split.counts()["abc".index(label)] - 1
    assert split.locate(0) in said[0]


@pytest.mark.parametrize("asked", [Asked("dev", 1, 0), Asked("train", 1, 0, ("d",))])
def test_what_is_not_there_is_refused(run: Run, asked: Asked) -> None:
    with pytest.raises(ConfigError, match="no such"):
        show(run, asked, print)


def test_of_a_volume_the_middle_slice_is_shown(tmp_path: Path) -> None:
    write_data(tmp_path / "n", 4, "nifti")
    text = """
data: {source: {name: nifti, path: n}, batch_size: 2, image_size: 8}
augment: {train: [], eval: []}
task: {name: volume_classification}
model: {name: resnet3d, in_channels: 1}
"""
    run = load_text(text, "c.yaml", ()).run
    split = open_dataset(run.data).splits["train"]
    shown = show(run, Asked("train", 2, 0, augmented=True), print)
    assert (shown.images, shown.classes) == (6, len(CLASSES))
    middles = []
    for row in range(len(split)):
        volume = np.asarray(split.reader.read(row))
        whole = (volume - volume.min()) / (volume.max() - volume.min())
        middles.append(np.round(whole[volume.shape[0] // 2] * 255).astype(np.uint8))
    for column in range(4):
        cell = _cell(shown, 0, column)
        step = cell.shape[0] // 20  # small pictures are enlarged
        close = [np.abs(cell[::step, ::step, 0].astype(int) - middle).max() <= 1 for middle in middles]
        assert sum(close) == 1 and split.label(close.index(True)) == CLASSES[0]
