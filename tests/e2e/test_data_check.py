"""`raycls data check` on Ray, where a worker is killed and an image ends its process: what one machine finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.planted import plant
from harness.processes import raycls, titled

_SOURCE = """
import multiprocessing, os, pathlib, time
import numpy as np
from raycls.data.samples import Keys, Samples


class Reader:
    def __init__(self, files):
        self.files = files

    def read(self, index):
        time.sleep(0.005)
        if index > 700:
            pathlib.Path("far").touch()
        if index in (12, 700) and multiprocessing.parent_process() is not None:
            os._exit(9)  # as a decoder that crashes
        return pathlib.Path(self.files[index]).read_bytes()


def source(path):
    files = sorted(str(file) for file in pathlib.Path(path).rglob("*.*"))
    labels = np.array([pathlib.Path(file).parent.name == "b" for file in files], np.int64)
    val = np.array(["/val/" in file for file in files])
    splits = {"train": np.flatnonzero(~val), "val": np.flatnonzero(val)}
    return Samples(("a", "b"), labels, Keys(files), Reader(files), splits)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_check_on_ray_through_a_kill_finds_the_same(tmp_path: Path) -> None:
    plant(tmp_path / "p", each=450)
    (tmp_path / "own.py").write_text(_SOURCE)
    (tmp_path / "c.yaml").write_text("data: {source: {name: 'own:source', path: p}, image_size: 8}\n")
    with raycls(tmp_path, "data", "check", "c.yaml", "--out", "here.html", name="here") as command:
        assert command.wait(120) == 3, command.said()
    (tmp_path / "far").unlink()
    words = ("data", "check", "c.yaml", "--out", "there.html", "scale.workers=2")
    with raycls(tmp_path, *words, name="there") as command:
        command.until((tmp_path / "far").exists, 240)
        titled(command.processes(), "MapWorker")[0].kill()
        assert command.wait(240) == 3, command.said()
        command.assert_gone(60)
    for suffix in ("json", "html"):
        assert (tmp_path / f"there.{suffix}").read_bytes() == (tmp_path / f"here.{suffix}").read_bytes()
    found = json.loads((tmp_path / "there.json").read_text())
    ended = [entry for entry in found["unreadable"] if entry["what"] == "decoding an image ended the process"]
    assert len(ended) == 2 and len(found["unreadable"]) == 11
