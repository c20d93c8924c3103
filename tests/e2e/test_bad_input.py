"""What cannot be trained ends soon, with its name: damaged files, broken models, too large wishes."""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from harness.processes import start
from harness.runs import Foreign, Site
from PIL import Image

pytestmark = pytest.mark.ray

_CONFIG = """
data: {source: {name: folder, path: pictures}, batch_size: 8, image_size: 8}
augment: {train: [{center_crop: {size: 8}}], eval: [{center_crop: {size: 8}}]}
model: {name: tiny_cnn, args: {width: 8}}
train: {duration: 1ep, micro_batches: 2, amp: "off"}
"""

_MODEL = """
from torch import nn


class Breaks(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, num_classes)
        self.calls = 0

    def forward(self, images):
        self.calls += self.training
        if self.calls > 3:
            raise ZeroDivisionError("the fourth batch is too much for this model")
        return self.layer(images.flatten(1))
"""

_STREAM = """
import json, sys
from raycls.config.load import load
from raycls.data.order import Order
from raycls.data.slices import Maker, Timeline
from raycls.data.source import open_dataset
from raycls.data.stream import open_stream
from raycls.cluster.connection import running_cluster
from raycls.session.setup import make_arrays

run = load("small.yaml").run
data = open_dataset(run.data)
order = Order(0, len(data.splits["train"]), 8, 2)
rows = len(data.splits["val"])
maker = Maker(order, 1, data.splits["train"], data.splits["val"], 1, make_arrays(run, data.classes))
with running_cluster():
    stream = open_stream(run.data, "ray", Timeline(order, 1, 0, 0, 1, rows, 1, True), maker, 0)
    for index, made in enumerate(stream.evaluation(0, rows, 1)):
        error = made.error
        shown = [error.exit_code, str(error)] if error else list(made.arrays["image"].shape)
        print(json.dumps([data.splits["val"].key(index), shown]))
    stream.close()
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """16 good images to train on; the validation split has five good and five bad files."""
    folder = tmp_path_factory.mktemp("bad")
    random = np.random.RandomState(0)
    for split, count in (("train", 8), ("val", 5)):
        for index in range(count):
            for name in ("cat", "dog") if split == "train" else ("cat",):
                path = folder / "pictures" / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    bad = folder / "pictures" / "val" / "dog"
    bad.mkdir()
    noise = Image.fromarray(random.randint(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(bad / "truncated.jpg")
    (bad / "truncated.jpg").write_bytes((bad / "truncated.jpg").read_bytes()[:-900])
    (bad / "empty.jpg").touch()
    (bad / "page.jpg").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (bad / "notes.png").write_text("remember the milk\n")
    (bad / "bomb.png").write_bytes(bomb(10_000, 10_000))
    (folder / "small.yaml").write_text(_CONFIG)
    (folder / "breaking.py").write_text(_MODEL)
    return Site(folder)


REASONS = {
    "bomb.png": "10000 x 10000 = 100.0 million pixels",
    "empty.jpg": "an empty file",
    "notes.png": "this is text",
    "page.jpg": "an HTML page",
    "truncated.jpg": "the file ends too early",
}


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises `width` x `height` pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.nightly
def test_every_bad_file_arrives_through_ray_data_as_an_error(pictures: Site, foreign: Foreign) -> None:
    with start([sys.executable, "-c", _STREAM], pictures.folder, env=foreign.environment) as command:
        assert command.wait(120) == 0, command.said()
    shown = dict(map(json.loads, command.stdout.splitlines()))
    assert len(shown) == 10
    for key, value in shown.items():
        name = Path(key).name
        if name in REASONS:
            code, text = value
            assert code == 3
            assert str(pictures.folder / "pictures" / key) in text
            assert REASONS[name] in text
        else:
            assert value == [1, 8, 8, 3]


@pytest.mark.slow
def test_training_ends_with_exit_code_3_and_the_name_of_the_file(pictures: Site, foreign: Foreign) -> None:
    words = ("train", "small.yaml", "scale.workers=2", "data.executor=ray", "run.name=bad")
    with pictures.raycls(*words, env=foreign.environment) as command:
        assert command.wait(150) == 3, command.said()
    assert re.search(r"empty|truncated|page|notes|bomb", command.stderr)
    assert str(Path("val") / "dog") in command.stderr
    assert "Traceback" not in command.stderr + command.stdout
    assert len(command.stderr.splitlines()) <= 6
    foreign.assert_idle()


def test_what_cannot_fit_is_refused_at_once_with_the_numbers(pictures: Site, foreign: Foreign) -> None:
    options = ("scale.workers=2", "scale.cpus_per_worker=1.5", "data.executor=ray")
    words = ("train", "small.yaml", *options, "run.name=large")
    with pictures.raycls(*words, env=foreign.environment) as command:
        assert command.wait(60) == 1, command.said()
    assert "nodes: 1 x (3 CPUs): room for 1 of 2 workers" in command.stderr
    assert "0.91 CPUs left on one node for decoding" in command.stderr
    foreign.assert_idle(10)


@pytest.mark.nightly
def test_exception_in_a_model_is_shown_with_the_place_of_the_logs(pictures: Site) -> None:
    words = ("train", "small.yaml", "model.name=breaking:Breaks", "model.args={}", "run.name=breaks")
    more = ("data.batch_size=2", "scale.workers=1", "scale.max_failures=0", "evaluate.every=off")
    began = time.monotonic()
    with pictures.raycls(*words, *more, name="breaks") as command:
        assert command.wait(240) == 1, command.said()
        command.assert_gone(5)
        logs = command.leftovers()
        print(f"a broken model ended after {time.monotonic() - began:.0f} s")
    assert "ZeroDivisionError: the fourth batch is too much for this model" in command.stderr
    assert len(logs) == 1
    named = re.search(rf"{re.escape(str(logs[0]))}\S*", command.stderr)
    assert named
    assert Path(named[0].rstrip(";,")).is_dir()
    assert "Traceback" not in command.stderr
    shutil.rmtree(logs[0])
