"""What goes wrong in a sample travels in its slice, whoever wrote the code that raised."""

from __future__ import annotations

from pathlib import Path

from harness.plugins import user_module

from raycls.config.schema import DataConfig, SourceConfig
from raycls.data import augment
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


def test_exception_of_a_source_arrives_as_an_error_that_names_the_sample(tmp_path: Path) -> None:
    with user_module(tmp_path, "source_of_a_user", _PLUGIN) as name:
        dataset = open_dataset(DataConfig(source=SourceConfig(name=f"{name}:source", path=str(tmp_path))))
    same = augment.build((), train=True, image_size=8)
    maker = Maker(Order(0, 2, 1, 1), 1, dataset.splits["train"], dataset.splits["val"], 1, same, same)
    made = maker(Position(TRAIN, 0, 0, 0, 0))
    assert isinstance(made.error, DataError)
    assert made.error.where in {"sample 0", "sample 1"}
    assert made.error.found == f"KeyError: 'no such key', raised in {tmp_path / 'source_of_a_user.py'}:7"
    assert made.pixels.shape == (0, 0, 0, 3)
