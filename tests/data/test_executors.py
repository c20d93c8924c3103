"""Samples of several arrays, none of the same kind: the three executors give the same bytes of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.depths import HIGH, write_deep
from harness.processes import start
from harness.runs import Foreign

_TASK = """
import numpy as np

from raycls.data.samples import Keys, Samples
from raycls.tasks.base import Metric, Task


class Pictures:
    def __init__(self, numbers):
        self.numbers = numbers

    def read(self, index):
        return np.full((2, 3, 3), self.numbers[index], np.uint8)

    def take(self, rows):
        return Pictures([self.numbers[row] for row in rows])


def numbers(path):
    keys = Keys(f"number {row}" for row in range(12))
    return Samples((), None, keys, Pictures(range(12)), splits={"train": range(10), "val": (10, 11)})


class Several(Task):
    metrics = {"error": Metric("min")}

    def arrays(self, split, index, key, *, train):
        image = np.asarray(split.image(index))
        return {
            "image": image,
            "wave": image[0, 0, 0] / np.arange(1.0, 5.0),
            "turned": image.astype(np.int16)[::-1].T - 100,
            "odd": np.array(image[0, 0, 0] % 2 == 1),
            "nothing": np.zeros((0, 2), np.float32),
        }

    batch = loss = counts = summary = None
"""

_SCRIPT = """
import json
import os
from dataclasses import asdict

from raycls.cluster.connection import running_cluster
from raycls.cluster.environment import prepare_environment
from raycls.config.sections.data import AugmentConfig, DataConfig, SourceConfig
from raycls.config.sections.task import LossConfig, TaskConfig
from raycls.data.order import Order
from raycls.data.slices import Maker, Timeline
from raycls.data.source import open_dataset
from raycls.data.stream import open_stream
from raycls.tasks.base import Setting
from raycls.tasks.build import Arrays
from raycls.workdir import set_workdir


def made(executor, config, maker):
    timeline = Timeline(maker.order, 1, 0, 2, 2, 10, 4)
    stream = open_stream(config, executor, timeline, maker, 0)
    try:
        slices = [stream.next("train", 0), stream.next("train", 1), *stream.evaluation(2, 3, 1)]
    finally:
        stream.close()
    assert all(one.error is None for one in slices), slices
    return [
        [
            asdict(one.position),
            one.ids.tolist(),
            {name: [array.dtype.str, array.shape, array.tobytes().hex()] for name, array in one.arrays.items()},
        ]
        for one in slices
    ]


if __name__ == "__main__":
    prepare_environment()
    set_workdir(os.getcwd())
    config = DataConfig(source=SourceConfig(name="several:numbers"), image_size=8, processes=1)
    split = open_dataset(config).splits["train"]
    setting = Setting(0, (), 8, 1000, AugmentConfig(), LossConfig(), True)
    arrays = Arrays(TaskConfig(name="several:Several"), setting)
    maker = Maker(Order(0, 10, 5, 2), 1, split, split, 4, arrays)
    with running_cluster():
        print(json.dumps({executor: made(executor, config, maker) for executor in ("inline", "processes", "ray")}))
"""


_DEEP = (
    _SCRIPT.replace('name="several:numbers")', 'path="files"), channels=1, bit_depth=16')
    .replace("LossConfig(), True)", "LossConfig(), True, channels=1, planes=planes_of(config))")
    .replace('name="several:Several"', "")
    .replace("from raycls.data.order", "from raycls.data.images.planes import planes_of\nfrom raycls.data.order")
)


@pytest.mark.ray
def test_the_executors_give_the_same_16_bits(foreign: Foreign, tmp_path: Path) -> None:
    """Of `random_resized_crop` and a flip in training, and of a resize and a crop in an evaluation."""
    write_deep(tmp_path / "files", train=10, val=2)
    (tmp_path / "script.py").write_text(_DEEP)
    with start([sys.executable, "script.py"], tmp_path, env=foreign.environment) as command:
        assert command.wait(120) == 0, command.said()
        command.assert_gone(5)
    found = json.loads(command.stdout.splitlines()[-1])
    assert found["ray"] == found["inline"]
    assert found["processes"] == found["inline"]
    for _, ids, arrays in found["inline"]:
        kind, shape, text = arrays["image"]
        values = np.frombuffer(bytes.fromhex(text), np.uint16)
        assert (kind, shape) == ("<u2", [len(ids), 8, 8, 1])
        assert len(set(values.tolist())) > 20 and HIGH <= values.min() <= values.max() < HIGH + 192


@pytest.mark.ray
def test_the_executors_give_the_same_bytes_of_arrays_of_different_kinds(foreign: Foreign, tmp_path: Path) -> None:
    (tmp_path / "several.py").write_text(_TASK)
    (tmp_path / "script.py").write_text(_SCRIPT)
    with start([sys.executable, "script.py"], tmp_path, env=foreign.environment) as command:
        assert command.wait(120) == 0, command.said()
        command.assert_gone(5)
    found = json.loads(command.stdout.splitlines()[-1])
    inline = found["inline"]
    assert found["ray"] == inline
    assert found["processes"] == inline
    assert sorted(row for _, ids, _ in inline[:2] for row in ids) == list(range(10))
    assert [ids for _, ids, _ in inline[2:]] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for _, ids, arrays in inline:
        expected = _expected(np.array(ids))
        assert {name: (kind, tuple(shape)) for name, (kind, shape, _) in arrays.items()} == {
            name: (array.dtype.str, array.shape) for name, array in expected.items()
        }
        for name, (_, _, text) in arrays.items():
            assert bytes.fromhex(text) == expected[name].tobytes(), name


def _expected(ids: np.ndarray) -> dict[str, np.ndarray[Any, Any]]:
    """What `Several.arrays` makes of these samples: an image of a sample is full of its number."""
    count = len(ids)
    return {
        "image": np.broadcast_to(ids.astype(np.uint8)[:, None, None, None], (count, 2, 3, 3)),
        "wave": ids[:, None] / np.array([1.0, 2.0, 3.0, 4.0]),
        "turned": np.broadcast_to((ids - 100).astype(np.int16)[:, None, None, None], (count, 3, 3, 2)),
        "odd": ids % 2 == 1,
        "nothing": np.zeros((count, 0, 2), np.float32),
    }
