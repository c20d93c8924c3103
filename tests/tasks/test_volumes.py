"""Classification of volumes: the same bits on any number of workers, through a kill, and nothing of a patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.jobs import curve, job_of, train, train_rank, weights
from harness.kills import run_killed
from harness.pages import type_in
from harness.phantom import PLANTED, phantom, write_data
from harness.tasks import setting

from raycls.config.load import load_text
from raycls.config.sections.task import TaskConfig
from raycls.data.source import open_dataset
from raycls.data.volumes.reading import Wanted, volume_of
from raycls.data.volumes.windows import channels_of
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check
from raycls.session.job import Job
from raycls.session.setup import make_arrays
from raycls.tasks.build import build
from raycls.tasks.volumes import VolumeClassification

_CONFIG = """
data:
  source: {name: dicom, path: ct}
  batch_size: 6
  image_size: 12
  window: [soft_tissue, {center: 300, width: 1400}]
augment:
  train: [{resize: {size: [6, 14, 14]}}, {random_crop: {size: [6, 12, 12]}}, flip, intensity, noise]
  eval: [{resize: {size: [6, 12, 12]}}]
task: {name: volume_classification}
model: {name: resnet3d, in_channels: 2, args: {depth: 10, width: 4, stem: 3x3x3}}
optim: {lr: 0.01}
train: {duration: 2ep, micro_batches: 2, amp: off, ledger: pixels}
track: {log_every: 1st}
checkpoint: {every: 2st}
evaluate: {keep: last}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six series of each class."""
    return write_data(tmp_path_factory.mktemp("volumes") / "ct", 6, "dicom")


def _run(data: Path, folder: Path, *overrides: str, world: int = 0) -> Any:
    names = [f"run.storage={folder.parent}", f"run.name={folder.name}", f"data.source.path={data}"]
    return load_text(_CONFIG, "ct.yaml", [*names, f"scale.workers={world}", "data.executor=inline", *overrides]).run


def _job(data: Path, folder: Path, *overrides: str, world: int = 0) -> Job:
    return job_of(_run(data, folder, *overrides, world=world))


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    assert train(_job(data, folder))["state"] == "done"
    return folder


@pytest.mark.slow
@pytest.mark.faults
def test_the_same_bits_on_two_workers_that_are_killed_and_then_on_one(
    data: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    job = _job(data, folder, world=2)
    assert -9 in run_killed(2, train_rank, job, 5)  # the checkpoint of step 2 is written before that of 4 is begun
    steps = RunFolder(folder).steps()
    assert steps and max(steps) < job.plan["total_steps"]
    train(_job(data, folder, world=1), 1)
    assert weights(folder) == weights(reference)
    assert (curve(folder), check(RunFolder(folder)).ok) == (curve(reference), True)


def test_a_sample_is_what_its_parts_say(data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path / "run", "data.spacing=[5, 2, 1.5]", "augment.eval=[]")
    split = open_dataset(run.data).splits["train"]
    sample = make_arrays(run, split.classes)(split, 1, (0, -1, 1), train=False)
    assert sample["volume"].shape == (2, 5, 10, 12) and sample["volume"].dtype == np.float32
    whole = volume_of(split, 1, Wanted(run.data.window))
    assert np.array_equal(whole, channels_of(split.reader.read(1), run.data.window)) and whole.shape == (2, 10, 20, 24)
    place = Path(split.locate(1))
    assert split.classes[split.labels[1]] == place.parent.name
    assert np.array_equal(
        split.reader.read(1), phantom(1000 * int(split.labels[1]) + int(place.name[1:]), split.labels[1])
    )


def test_a_window_reaches_the_network_as_minus_one_to_one() -> None:
    task = VolumeClassification(setting(channels=1))
    volume = np.array([0, 0.25, 1], np.float32).reshape(1, 1, 1, 1, 3)
    images, labels, _ = task.batch({"volume": volume, "label": np.array([1])}, train=True)
    assert images.flatten().tolist() == [-1, -0.5, 1] and labels.tolist() == [1]
    assert images.is_contiguous(memory_format=torch.channels_last_3d)
    shown, parts = task.shown(task.batch({"volume": volume, "label": np.array([1])}, train=True))
    assert shown.shape == (1, 1, 3, 3) and shown[0, 0, :, 0].tolist() == [0, 64, 255] and parts.tolist() == [[0, 1]]
    assert [part.shape for part in task.example({"volume": volume[0]})] == [(1, 1, 1, 1, 3)]


def test_samples_are_made_beside_the_steps_unless_a_plug_in_draws() -> None:
    assert VolumeClassification(setting(channels=1, train=("flip", "noise"))).separate

    class Own(VolumeClassification):
        def arrays(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
            return super().arrays(*args, **kwargs)

    assert not Own(setting(channels=1)).separate


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"channels": 3}, "model.in_channels, data.window"),
        ({"channels": 1, "mean": (0.5, 0.5, 0.5)}, "augment.mean, augment.std"),
    ],
)
def test_options_that_do_not_fit_volumes_are_refused(options: dict[str, Any], where: str) -> None:
    with raised(ConfigError, where=where):
        build(TaskConfig(name="volume_classification"), setting(**options))


@pytest.mark.slow
def test_nothing_of_a_patient_is_in_the_run_folder_the_log_or_the_report(data: Path, tmp_path: Path) -> None:
    """Searched as bytes for the planted name, ids, dates and places, in Parquet and HTML as well."""
    text = _CONFIG + f"run: {{storage: {tmp_path}/runs, name: a}}\nscale: {{workers: 0}}\n"
    (tmp_path / "ct.yaml").write_text(text.replace("path: ct", f"path: {data}"))
    folder, said = tmp_path / "runs" / "a", ""
    for words in (
        ("raycls", "train", str(tmp_path / "ct.yaml")),
        ("raycls", "eval", str(folder), "--split", "test"),
        ("raycls", "report", str(folder)),
    ):
        code, text = type_in(words)
        assert code == 0, text
        said += text
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"splits.parquet", "report.html", "history.jsonl"} <= {path.name for path in files}
    planted = [part for text in PLANTED for part in {text, text.split("^")[0]}]
    for name, content in [(str(path), _unpacked(path)) for path in files] + [("the log", said.encode())]:
        assert not [text for text in planted if text.encode() in content], name


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, and those of the columns of a Parquet file."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    from pyarrow import parquet

    table = parquet.read_table(path)
    return path.read_bytes() + repr(table.to_pydict()).encode() + repr(table.schema.metadata).encode()
