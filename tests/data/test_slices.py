"""What goes wrong in a sample travels in its slice, whoever wrote the code that raised."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.plugins import user_module
from harness.tasks import arrays
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.ignore import ignorer
from raycls.data.making.sample import collate, made
from raycls.data.order import Order
from raycls.data.slices import TRAIN, Maker, Position, Slice
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
    maker = Maker(Order(0, 2, 1, 1), 1, dataset.splits["train"], dataset.splits["val"], 1, arrays())
    made = maker(Position(TRAIN, 0, 0, 0, 0))
    assert isinstance(made.error, DataError)
    assert made.error.where in {"sample 0", "sample 1"}
    assert made.error.found == f"KeyError: 'no such key', raised in {tmp_path / 'source_of_a_user.py'}:7"
    assert (len(made.ids), made.arrays) == (0, {})


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
        (("MODULE:cut",), 16, 16, "differ in shape"),
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
        order = Order(0, len(train), len(train), 1)
        made = Maker(order, 1, train, None, 1, arrays(named, max_pixels=20_000))(Position(TRAIN, 0, 0, 0, 0))
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


_IMAGE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


def test_arrays_of_samples_are_stacked_by_name() -> None:
    samples = [{"image": _IMAGE + row, "depth": np.array(row / 4, ">f4")} for row in range(3)]
    batch = collate(samples, str)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "image": ((3, 2, 3, 3), np.dtype(np.uint8)),
        "depth": ((3,), np.dtype(np.float32)),
    }
    assert batch["depth"].dtype.isnative
    assert batch["depth"].tolist() == [0.0, 0.25, 0.5]
    assert batch["image"][2].tolist() == (_IMAGE + 2).tolist()
    assert collate([], str) == {}


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"image": _IMAGE.transpose(1, 0, 2)}, "a.png: image uint8 [2, 3, 3]; b.png: image uint8 [3, 2, 3]"),
        ({"image": _IMAGE.astype(np.int16)}, "a.png: image uint8 [2, 3, 3]; b.png: image int16 [2, 3, 3]"),
        ({"image": _IMAGE, "mask": _IMAGE}, "a.png: no mask; b.png: mask uint8 [2, 3, 3]"),
    ],
)
def test_samples_that_differ_are_an_error_that_names_both(other: dict[str, np.ndarray], found: str) -> None:
    with pytest.raises(DataError) as caught:
        collate([{"image": _IMAGE}, {"image": _IMAGE}, other], ["a.png", "c.png", "b.png"].__getitem__)
    assert (caught.value.where, caught.value.found) == ("b.png", found)


@pytest.mark.parametrize("word", [np.array("cat"), "cat"])
def test_an_array_of_words_is_an_error(word: Any) -> None:
    with pytest.raises(DataError) as caught:
        collate([{"name": word}], ["a.png"].__getitem__)
    assert (caught.value.where, caught.value.found) == ("a.png", "<U3")


@pytest.mark.parametrize(("sample", "found"), [(None, "None"), ({}, "{}")])
def test_a_task_that_makes_no_arrays_is_an_error_that_names_the_sample(sample: Any, found: str) -> None:
    class Place:
        def locate(self, row: int) -> str:
            return f"{row}.png"

    with pytest.raises(DataError) as caught:
        made(lambda *_, **__: sample, Place(), 7, (0, 0, 7), train=True)  # type: ignore[arg-type]
    error = caught.value
    assert (error.where, error.found, error.valid) == ("7.png", found, "a dict of numpy arrays")


def test_digests_are_over_the_arrays_of_each_sample_but_not_its_numbers() -> None:
    images, masks = np.stack([_IMAGE, _IMAGE + 1, _IMAGE + 2]), np.array([[0, 1], [2, 3], [4, 5]], np.uint8)
    made = Slice(Position(TRAIN, 0, 0, 0, 0), np.arange(3), {"mask": masks, "label": np.arange(3), "image": images})
    expected = [hashlib.sha256(bytes([*images[row].ravel().tolist(), *masks[row].tolist()])) for row in (1, 2)]
    assert made.digests(1, 3) == [digest.hexdigest() for digest in expected]
    cut = Slice(made.position, made.ids, {"image": images[:, ::2], "label": np.arange(3)})
    assert cut.digests(0, 1) == [hashlib.sha256(bytes(_IMAGE[::2].ravel().tolist())).hexdigest()]
