"""`raycls probe` on Ray, killed while it extracts: the head is that of a probe in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.jobs import write_arrays
from harness.processes import raycls

_CONFIG = """
data: {source: {name: arrays, path: images.npz}, image_size: 12, batch_size: 64}
augment: {train: [], eval: []}
model: {name: tiny_cnn, args: {width: 8}}
train: {amp: "off", micro_batches: 4}
scale: {workers: 0, threads: 1}
"""


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.timeout(400)
def test_killed_on_two_workers_and_resumed_as_in_one_process(tmp_path: Path) -> None:
    write_arrays(tmp_path / "images.npz", train=12_000, val=600)
    (tmp_path / "c.yaml").write_text(_CONFIG)
    with raycls(tmp_path, "probe", "c.yaml", "run.name=one", name="one") as one:
        assert one.wait(120) == 0, one.said()
    parts = tmp_path / "runs/two/features/train"
    words = ("probe", "c.yaml", "run.name=two")
    with raycls(tmp_path, *words, "scale.workers=2", name="killed") as killed:
        killed.until(lambda: len(list(parts.glob("part-*.npz"))) >= 3, 200)
        killed.kill()
        killed.assert_gone(60)
    there = len(list(parts.glob("part-*.npz")))
    assert 3 <= there < 47 and not (tmp_path / "runs/two/result.json").exists()
    with raycls(tmp_path, *words, name="resumed") as resumed:
        assert resumed.wait(120) == 0, resumed.said()
    assert f"resuming: {there} of 47 parts of the split train are there" in resumed.said()
    first, second = ((tmp_path / f"runs/{name}/model/model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second
