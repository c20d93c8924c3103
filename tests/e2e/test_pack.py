"""`raycls pack` killed while it works, here and on Ray: what was done is kept, and the bytes are those of one go."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from harness.processes import raycls, titled
from harness.trained import CONFIG, write_photos
from PIL import Image

from raycls.config.load import load_text
from raycls.session.packing.pack import Request, pack


def _write(folder: Path, count: int) -> None:
    """`count` small images of noise in two classes, and a config."""
    draw = np.random.default_rng(0)
    for index in range(count):
        path = folder / "images" / "ab"[index % 2] / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).save(path, compress_level=0)
    (folder / "c.yaml").write_text("data: {source: {path: images}}\n")


def _bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _whole(folder: Path) -> dict[str, str]:
    """The files of a command that is not killed."""
    run = load_text((folder / "c.yaml").read_text(), "c.yaml", [f"data.source.path={folder / 'images'}"]).run
    pack(run, Request(str(folder / "whole"), quality=0, processes=1), join=lambda *_: pytest.fail(), say=print)
    return _bytes(folder / "whole")


def _shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*.arrow"))


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_command_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    _write(tmp_path, 18_000)
    words = ("pack", "c.yaml", "--out", "packed", "--quality", "raw", "--processes", "2")
    with raycls(tmp_path, *words, name="first") as first:
        first.until(lambda: len(_shards(tmp_path / "packed")) >= 2, 120)
        first.kill()
        first.assert_gone(20)
    there = _shards(tmp_path / "packed")
    assert 2 <= len(there) < 6
    assert not (tmp_path / "packed/pack.json").exists()
    with raycls(tmp_path, *words, name="second") as second:
        assert second.wait(120) == 0, second.said()
    found = re.search(r"resuming: (\d+) of 6 shards are there already", second.stderr)
    assert found is not None and int(found[1]) == len(there), second.said()
    assert _bytes(tmp_path / "packed") == _whole(tmp_path)


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_packed_on_ray_through_kills_and_trained_from_by_two_workers(tmp_path: Path) -> None:
    _write(tmp_path, 18_000)
    words = ("pack", "c.yaml", "--out", "packed", "--quality", "raw", "scale.workers=2")
    with raycls(tmp_path, *words, name="first") as command:
        command.until(lambda: len(_shards(tmp_path / "packed")) >= 1, 240)
        titled(command.processes(), "MapWorker")[0].kill()  # Ray has the shards of a lost worker made again
        command.until(lambda: len(_shards(tmp_path / "packed")) >= 2, 240)
        command.kill()
        command.assert_gone(60)
    with raycls(tmp_path, *words, name="last") as last:
        assert last.wait(300) == 0, last.said()
    assert _bytes(tmp_path / "packed") == _whole(tmp_path)
    write_photos(tmp_path / "photos", 20)
    (tmp_path / "shapes.yaml").write_text(CONFIG)
    with raycls(tmp_path, "pack", "shapes.yaml", "--out", "p", "--quality", "raw", "--size", "none") as command:
        assert command.wait(60) == 0, command.said()
    digests = set()
    for name, options in {
        "files": ("scale.workers=0",),
        "one": ("scale.workers=0", "data.source={name: packed, path: p}"),
        "two": ("scale.workers=2", "data.executor=ray", "data.source={name: packed, path: p}"),
    }.items():
        words = ("train", "shapes.yaml", f"run.name={name}", "train.micro_batches=2", "train.duration=2ep", *options)
        with raycls(tmp_path, *words, name=name) as command:
            assert command.wait(240) == 0, command.said()
        digests.add(hashlib.sha256((tmp_path / f"runs/{name}/model/model.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1
