"""`raycls predict` killed while it works: every image once, and nothing that was done is done again."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness.object_store import BUCKET, S3
from harness.processes import Command, raycls, titled
from PIL import Image
from pyarrow import parquet


def _write(folder: Path, count: int) -> None:
    """`count` small images of noise, which differ: as their predictions do."""
    draw = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{index // 1000:02d}" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (28, 28, 3), np.uint8)).save(path, compress_level=0)


def _parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*.npz"))


def _resumed(command: Command) -> int:
    """How many parts a command says it found."""
    match = re.search(r"resuming: (\d+) of \d+ parts are there already", command.stderr)
    return int(match[1]) if match else 0


def _assert_once(file: Path, images: int) -> None:
    table = parquet.read_table(file)
    paths = table.column("path").to_pylist()
    assert (len(paths), len(set(paths)), table.column("error").null_count) == (images, images, images)
    assert paths == sorted(paths)


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_command_is_resumed_on_one_machine(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(trained / "runs")
    _write(tmp_path / "images", 2600)
    words = ("predict", "shapes", "images", "--out", "p.parquet", "data.processes=1")
    with raycls(tmp_path, *words, name="first") as first:
        first.until(lambda: len(_parts(tmp_path / "p.parquet.parts")) >= 3, 120)
        first.kill()
        first.assert_gone(20)
    there = _parts(tmp_path / "p.parquet.parts")
    assert 3 <= len(there) < 11
    assert not (tmp_path / "p.parquet").exists()
    with raycls(tmp_path, *words, name="second") as second:
        assert second.process.wait(120) == 0, second.said()
    assert _resumed(second) == len(there)
    assert "wrote" in second.stdout
    _assert_once(tmp_path / "p.parquet", 2600)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("p.", "."))) == ["p.parquet"]


@pytest.mark.slow
@pytest.mark.faults
def test_processes_die_with_the_command_and_a_killed_process_is_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(trained / "runs")
    _write(tmp_path / "images", 5200)
    words = ("predict", "shapes", "images", "--out", "p.parquet", "data.processes=2")
    with raycls(tmp_path, *words, name="first") as first:
        first.until(lambda: len(_parts(tmp_path / "p.parquet.parts")) >= 2, 120)
        first.kill()
        first.assert_gone(20)
    with raycls(tmp_path, *words, name="second") as second:
        second.until(lambda: len(_parts(tmp_path / "p.parquet.parts")) >= 6, 120)
        busy = [process for process in second.processes() if process.pid != second.process.pid]
        forked = [process for process in busy if "forkserver" in " ".join(process.cmdline())]
        max(forked, key=lambda process: process.cpu_times().user).kill()
        assert second.process.wait(120) == 0, second.said()  # what it computed is computed by another one
        second.assert_gone(20)
    assert _resumed(second) >= 2
    _assert_once(tmp_path / "p.parquet", 5200)


_DEADLY = """
import os

import numpy as np
from raycls.data.samples import Samples


class Reader:
    def read(self, index):
        if index == 1400:
            os._exit(9)
        return np.full((8, 8, 3), index % 251, np.uint8)


def deadly(path):
    names = [f"image-{index:04d}" for index in range(2100)]
    return Samples(["a", "b"], np.arange(2100) % 2, keys=names, reader=Reader())
"""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    "overrides",
    [
        ("data.processes=2",),
        pytest.param(("scale.workers=1", "scale.max_failures=0"), marks=[pytest.mark.ray, pytest.mark.timeout(300)]),
    ],
)
def test_an_image_that_ends_whoever_reads_it_is_an_error_that_names_its_part(
    overrides: tuple[str, ...], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").symlink_to(trained / "runs")
    (tmp_path / "deadly.py").write_text(_DEADLY)
    (tmp_path / "images.yaml").write_text("data: {source: {name: 'deadly:deadly'}}")
    words = ("predict", "shapes", "images.yaml", "--out", "p.csv", *overrides)
    with raycls(tmp_path, *words) as command:
        assert command.wait(240) == 1, command.said()
        command.assert_gone(20)
    assert "where: part 5, images 1,281 to 1,536: image-1280 to image-1535" in command.stderr
    assert command.stderr.count("raycls: ") == 1
    assert "Traceback" not in command.said(), command.said()
    kept = _parts(tmp_path / "p.csv.parts")
    assert "part-00000.npz" in kept
    assert "part-00005.npz" not in kept


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_ten_thousand_images_on_ray_survive_kills_of_workers_and_driver(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(trained / "runs")
    _write(tmp_path / "images", 10_000)
    folder, draw = tmp_path / "p.parquet.parts", random.Random()
    seed = draw.randrange(1000)
    draw.seed(seed)
    words = ("predict", "shapes", "images", "--out", "p.parquet", "scale.workers=2")
    done = 0
    for start in range(2):
        with raycls(tmp_path, *words, name=f"start{start}") as command:
            aim = done + draw.randint(2, 6)
            command.until(lambda aim=aim: len(_parts(folder)) >= aim, 240)
            if start == 0:  # the driver lives: Ray has the parts of the lost worker computed again
                worker = draw.choice(titled(command.processes(), "MapWorker"))
                worker.kill()
                command.until(lambda aim=aim: len(_parts(folder)) >= aim + 4, 240)
            time.sleep(draw.random())
            command.kill()
            command.assert_gone(60)
            assert _resumed(command) == done, f"seed {seed}"
        assert not (tmp_path / "p.parquet").exists(), f"seed {seed}: the command was done before it was killed"
        done = len(_parts(folder))
    with raycls(tmp_path, *words, name="last") as last:
        assert last.process.wait(300) == 0, last.said()
    assert _resumed(last) == done, f"seed {seed}"
    assert not folder.exists()
    _assert_once(tmp_path / "p.parquet", 10_000)
    with raycls(tmp_path, *words[:4], "here.parquet", name="here") as here:
        assert here.process.wait(300) == 0, here.said()
    assert (tmp_path / "here.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_run_images_and_file_in_an_object_store_on_ray(trained: Path, s3: S3, tmp_path: Path) -> None:
    _write(tmp_path / "images", 600)
    files = [path for pattern in ("*.*", "model/*") for path in (trained / "runs/shapes").glob(pattern)]
    for file in files:
        key = str(file.relative_to(trained / "runs"))
        s3.client.put_object(Bucket=BUCKET, Key=f"runs/{key}", Body=file.read_bytes())
    for file in (tmp_path / "images").rglob("*.png"):
        s3.client.put_object(Bucket=BUCKET, Key=str(file.relative_to(tmp_path)), Body=file.read_bytes())
    words = ("predict", s3.uri("runs/shapes"), s3.uri("images"), "--out", s3.uri("p.parquet"), "scale.workers=2")
    done: Callable[[], int] = lambda: sum("part-" in name for name in s3.objects("p.parquet.parts/"))  # noqa: E731
    with raycls(tmp_path, *words, name="first", env=s3.environment) as first:
        first.until(lambda: done() >= 1, 240)
        first.kill()
        first.assert_gone(60)
    there = done()
    with raycls(tmp_path, *words, name="second", env=s3.environment) as second:
        assert second.process.wait(240) == 0, second.said()
    assert _resumed(second) == there >= 1
    (tmp_path / "p.parquet").write_bytes(s3.read("p.parquet") or b"")
    _assert_once(tmp_path / "p.parquet", 600)
    assert parquet.read_table(tmp_path / "p.parquet").column("path")[0].as_py() == f"s3://{BUCKET}/images/00/00000.png"
