"""`raycls bench CONFIG` without its command: what is measured of which task, and that nothing is left of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from harness.jobs import make_job, write_arrays
from harness.processes import raycls
from PIL import Image

from raycls.config import load as config
from raycls.errors import DataError, TrainError
from raycls.launch.speed import speed
from raycls.screen.measured.speed_text import speed_lines
from raycls.session.speed import measure, steps
from raycls.train.plan import Plan

if TYPE_CHECKING:
    from harness.runs import Foreign

RATES = ("fetch", "decode", "augment", "sample", "transfer", "step", "together", "dataloader")


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain loader makes its samples here: a process takes seconds to start."""
    monkeypatch.setattr(measure, "_MOST_PROCESSES", 0)


def _speed(tmp_path: Path, *options: str) -> dict[str, Any]:
    data = write_arrays(tmp_path / "data.npz", train=20, val=4)
    return _of(make_job(tmp_path / "run", data, *options).config, tmp_path)


def _of(values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = speed(config.from_dict(values), 0.0, say=lambda text: None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    return found


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("train.micro_batches=2", "optim.ema=0.9", "optim.sam=0.05", "augment.batch=[mixup]"),
        ("task.name=simclr", "train.micro_batches=1", "evaluate.keep=last", "train.amp=off"),
        ("task={name: moco, args: {queue: 8}}", "train.micro_batches=1", "evaluate.every=off"),
    ],
)
def test_every_part_of_a_training_is_measured(options: tuple[str, ...], tmp_path: Path) -> None:
    found = _speed(tmp_path, "data.batch_size=8", *options)
    assert list(found["rates"]) == list(RATES)
    assert found["rates"].pop("decode") is None  # these are pixels
    for rate in found["rates"].values():
        assert rate["n"] == 2 and 0 < rate["min"] <= rate["median"] <= rate["max"]
    assert 0 <= found["data_wait"] <= 1
    assert found["workers"] == 0 and found["executor"] == "inline" and found["worker_batch_size"] == 8
    assert found["verdict"]["by"] in ("data", "the step") and found["note"] == ""
    lines = speed_lines({**found, "rates": {**found["rates"], "decode": None}}, ["c.yaml", "data.processes=9"])
    assert [line.split()[0] for line in lines[3:11]] == list(RATES)
    assert lines[4].split()[1:] == ["-", "the", "source", "has", "pixels"]
    assert lines[12].startswith(f"bound by {found['verdict']['by']}: ")
    for line in lines[13:]:
        assert line.startswith("  try  ") and line.count("data.processes=") <= 1


def test_images_with_any_number_of_classes_and_files_that_are_decoded(tmp_path: Path) -> None:
    rows = ["path,label"]
    for index in range(24):
        Image.fromarray(np.full((12, 12, 3), 10 * index, np.uint8)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{('a', 'b', 'a;b', '')[index % 4]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    source = {"name": "manifest", "path": str(tmp_path / "labels.csv"), "args": {"multilabel": ";"}}
    values = {
        "run": {"storage": str(tmp_path), "name": "tags"},
        "data": {"source": source, "batch_size": 8, "image_size": 8},
        "task": {"name": "multilabel"},
        "model": {"name": "tiny_cnn"},
        "evaluate": {"metric": "map"},
        "scale": {"workers": 0},
    }
    found = _of(values, tmp_path)
    assert found["rates"]["decode"]["n"] == 2
    values["data"]["cache"] = "memory"
    assert _of(values, tmp_path)["rates"]["together"]["n"] == 2
    (tmp_path / "3.png").write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:  # 3 batches are all of an epoch
        _of(values, tmp_path)
    assert str(caught.value.where).endswith("3.png")


def test_of_several_workers_one_part_of_the_batch_is_computed(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=20, val=4)
    job = make_job(tmp_path / "run", data, "data.batch_size=10", "train.micro_batches=4", world=3)
    run = config.from_dict(job.config)
    part = measure.part_of(run, Plan.from_dict(job.plan))
    assert (part.batch_size, part.micro_batches, part.evaluate_every) == (4, 1, 0)


def test_a_step_without_room_in_memory_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*args: Any, **more: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(steps, "train_loop", lacks)
    with pytest.raises(TrainError) as caught:
        _speed(tmp_path, "data.batch_size=8")
    assert caught.value.where == "data.batch_size, train.micro_batches"
    assert "8 images in 1 micro-batch" in str(caught.value.found)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_a_cluster_are_measured_and_their_folder_is_removed(foreign: Foreign, tmp_path: Path) -> None:
    write_arrays(tmp_path / "data.npz", train=40, val=8)
    (tmp_path / "run.yaml").write_text(
        "run: {name: pets}\ndata: {source: {name: arrays, path: data.npz}, image_size: 12, batch_size: 16}\n"
        "model: {name: tiny_cnn}\nscale: {workers: 2}\n"
    )
    words = "bench", "run.yaml", "--seconds=2", "--json=out.json"
    with raycls(tmp_path, *words, env=foreign.environment) as command:
        assert command.wait(300) == 0, command.said()
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["workers"], found["worker_batch_size"]) == (2, 8)
    assert found["executor"] == "ray" or found["executor_why"]
    assert found["rates"]["together"]["n"] >= 12
    assert [path.name for path in (tmp_path / "runs").iterdir()] == []
