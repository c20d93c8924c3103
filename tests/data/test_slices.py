"""What goes wrong in a sample travels in its slice, whoever wrote the code that raised."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.plugins import user_module
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.ignore import ignorer
from raycls.data.images import operations as augment
from raycls.data.order import Order
from raycls.data.slices import TRAIN, Maker, Position
from raycls.data.source import open_dataset
from raycls.errors import DataError

_PLUGIN = """
import numpy as np
from raycls.data.samples import Keys, Samples

class Reader:
    def read(self, index):
        return {}["no such key"]

def source(path):
    splits = {"train": np.arange(2), "val": np.arange(2, 4)}
    return Samples(("a", "b"), np.array([0, 1, 0, 1]), Keys(["w", "x", "y", "z"]), Reader(), splits)
"""

_TRANSFORMS = """
def raises():
    return lambda image: 1 / 0

def cut():
    sizes = iter(range(1, 9))
    return lambda image: image.crop((0, 0, next(sizes), 8))

def grey():
    return lambda image: image.convert("L")
"""


def test_exception_of_a_source_arrives_as_an_error_that_names_the_sample(tmp_path: Path) -> None:
    with user_module(tmp_path, "source_of_a_user", _PLUGIN) as name:
        dataset = open_dataset(DataConfig(source=SourceConfig(name=f"{name}:source", path=str(tmp_path))))
    same = augment.build((), train=True, image_size=8)
    maker = Maker(Order(0, 2, 1, 1), 1, dataset.splits["train"], dataset.splits["val"], 1, same, same)
    made = maker(Position(TRAIN, 0, 0, 0, 0))
    assert isinstance(made.error, DataError)
    assert made.error.where in {"sample 0", "sample 1"}
    assert str(made.error.found).startswith("KeyError: 'no such key'")
    assert str(made.error.found).endswith(f"{tmp_path / 'source_of_a_user.py'}:7")
    assert made.pixels.shape == (0, 0, 0, 3)


def _write(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 9, 9)).save(path)


def _sources(folder: Path, height: int, width: int) -> dict[str, tuple[SourceConfig, str]]:
    """One odd image among four in each source, and the place that an error about it names."""
    for split in ("train", "val"):
        for name in ("a/1.png", "b/2.png"):
            _write(folder / "pictures" / split / name, 16, 16)
    odd = folder / "pictures/train/b/2.png"
    _write(odd, height, width)
    rows = [f"{path.relative_to(folder)},{path.parent.name},{path.parts[-3]}" for path in sorted(folder.rglob("*.png"))]
    (folder / "list.csv").write_text("path,label,split\n" + "\n".join(rows))
    whole = np.zeros((2, height, width, 3), np.uint8)
    np.savez(folder / "all.npz", train_images=whole, train_labels=[0, 1], val_images=whole, val_labels=[0, 1])
    return {
        "folder": (SourceConfig(path=str(folder / "pictures")), str(odd)),
        "manifest": (SourceConfig(name="manifest", path=str(folder / "list.csv")), str(odd)),
        "arrays": (SourceConfig(name="arrays", path=str(folder / "all.npz")), f"{folder}/all.npz:train_images["),
    }


@pytest.mark.parametrize("source", ["folder", "manifest", "arrays"])
@pytest.mark.parametrize(
    ("operations", "height", "width", "words"),
    [
        (({"random_crop": {"size": 16}},), 16, 15, "16 x 15"),
        (({"resize": {"size": 8}},), 1, 9000, "1 x 9000"),
        (("MODULE:raises",), 16, 16, "ZeroDivisionError"),
        (("MODULE:grey",), 16, 16, "mode L"),
        (("MODULE:cut",), 16, 16, "differ in size"),
    ],
)
def test_an_error_of_an_augmentation_names_the_file(
    source: str, operations: tuple[Any, ...], height: int, width: int, words: str, tmp_path: Path
) -> None:
    config, place = _sources(tmp_path, height, width)[source]
    dataset = open_dataset(DataConfig(source=config))
    train = dataset.splits["train"]
    with user_module(tmp_path, "transforms_of_a_user", _TRANSFORMS) as name:
        named = tuple(str(entry).replace("MODULE", name) if isinstance(entry, str) else entry for entry in operations)
        augmentation = augment.build(named, train=True, image_size=8, max_pixels=20_000)
        order = Order(0, len(train), len(train), 1)
        made = Maker(order, 1, train, None, 1, augmentation, augmentation)(Position(TRAIN, 0, 0, 0, 0))
    assert isinstance(made.error, DataError)
    assert words in str(made.error)
    if "MODULE" in str(operations):  # every image fails: whichever comes first is named
        assert (made.error.where or "").startswith(str(tmp_path))
    else:
        assert place in str(made.error)
        if source != "arrays":  # of a source that can leave it out
            (option,) = [word for word in shlex.split(made.error.fix or "") if word.startswith("data.source.args")]
            kept = load_text("", "run.yaml", [option]).run.data.source.args["ignore"]
            assert [key for key in train.keys if ignorer(kept)(key)] == [
                next(k for k in train.keys if place.endswith(k))
            ]
