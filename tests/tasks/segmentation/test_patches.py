"""Training on patches and evaluating by sliding windows: one read, the same bits, and the right average."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.jobs import curve, job_of, train, train_rank, weights
from harness.kills import run_killed
from harness.masks import lesion, write_volumes
from harness.pages import type_in
from harness.phantom import Geometry
from harness.tasks import setting
from torch import Tensor, nn

from raycls.config.load import load, load_text
from raycls.config.sections.data import PatchConfig
from raycls.config.sections.train import SlidingWindowConfig
from raycls.data.patches.windows import corners, gaussian
from raycls.data.slices import TRAIN, Position
from raycls.data.source import open_dataset
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check
from raycls.session.data.checked_task import checked_task
from raycls.session.prepare import plan_of
from raycls.session.setup import make_maker
from raycls.tasks.segmentation.sliding import slid
from raycls.tasks.segmentation.task import Masked, Segmentation
from raycls.tasks.segmentation.volumes import VolumeSegmentation

_TEXT = """
data:
  source: {name: masks, args: {classes: [background, lesion]}}
  batch_size: 4
  window: [bone]
  patch: {size: [8, 16, 16], per_volume: 3}
augment: {train: [flip, noise], eval: []}
task: {name: volume_segmentation}
model: {name: unet, in_channels: 1, args: {dimensions: 3, width: 8, depth: 2}}
train: {duration: 2ep, micro_batches: 2, amp: off, ledger: pixels}
track: {log_every: 1st}
checkpoint: {every: 1st}
evaluate: {keep: last, metric: dice, sliding_window: {batch_size: 2}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of two sizes, in every split."""
    root = write_volumes(tmp_path_factory.mktemp("volumes") / "ct", {"train": 6, "val": 2, "test": 2})
    extra = write_volumes(root.parent / "more", {"train": 2, "val": 1, "test": 1}, Geometry(size=(7, 24, 20)))
    for file in sorted(extra.rglob("*.nii.gz")):
        file.rename(root / file.relative_to(extra).with_name(f"more-{file.name}"))
    return root


def _run(data: Path, folder: Path, *overrides: str, world: int = 0) -> Any:
    names = [f"run.storage={folder.parent}", f"run.name={folder.name}", f"data.source.path={data}"]
    return load_text(_TEXT, "a.yaml", [*names, f"scale.workers={world}", "data.executor=inline", *overrides]).run


def _trained(data: Path, folder: Path, *overrides: str, world: int = 0) -> tuple[Any, Any]:
    assert train(job_of(_run(data, folder, *overrides, world=world)), world)["state"] == "done"
    return weights(folder), curve(folder)


@dataclass(frozen=True)
class _Counting:
    """A reader that counts what is read, by name."""

    reader: Any
    name: str
    reads: Counter[tuple[str, int]]

    def read(self, index: int) -> Any:
        self.reads[self.name, index] += 1
        return self.reader.read(index)

    def spacing(self, index: int) -> tuple[float, ...]:
        return self.reader.spacing(index)


def test_a_volume_and_its_mask_are_read_once_for_all_of_its_patches(data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path / "run", "augment.train=[flip]")
    dataset, reads = open_dataset(run.data), Counter[tuple[str, int]]()
    split = dataset.splits["train"]
    parts = {"mask": _Counting(split.parts["mask"], "mask", reads)}
    counted = replace(split, reader=_Counting(split.reader, "image", reads), parts=parts)
    plan = plan_of(run, dataset)
    maker = replace(make_maker(run, plan, dataset, 1, "val"), train=counted)
    for step in range(plan.steps_per_epoch):
        made = maker(Position(TRAIN, 0, step, 0, 0))
        assert made.error is None, made.error
        assert made.arrays["volume"].shape == (4, 3, 1, 8, 16, 16) and made.arrays["mask"].shape == (4, 3, 8, 16, 16)
        for volume, mask in zip(made.arrays["volume"], made.arrays["mask"], strict=True):
            there = mask > 0
            assert np.array_equal(lesion(np.round(volume[:, 0] * 1800 - 400))[there], (mask - 1)[there])
    assert reads == {(name, row): 1 for name in ("image", "mask") for row in range(8)}


def test_the_loss_of_a_volume_is_the_mean_of_its_patches() -> None:
    task = VolumeSegmentation(setting(channels=1, patch=PatchConfig(size=(4, 4, 4))))
    rng = np.random.default_rng(0)
    arrays = {
        "volume": rng.random((2, 3, 1, 4, 4, 4), np.float32),
        "mask": rng.integers(0, 3, (2, 3, 4, 4, 4)).astype(np.uint8),
        "spacing": np.ones((2, 3, 3), np.float32),
    }
    model = nn.Conv3d(1, 2, 1)
    found = task.loss(model, task.batch(arrays, train=True))
    each = [
        task.loss(model, task.batch({name: array[row] for name, array in arrays.items()}, train=True))
        for row in range(2)
    ]
    for name in ("loss", "pixels"):
        assert found[name].item() == pytest.approx(sum(one[name].item() for one in each) / 3, rel=1e-6)


def test_patches_give_the_same_bits_on_any_number_of_workers_and_by_processes(data: Path, tmp_path: Path) -> None:
    reference = _trained(data, tmp_path / "w0")
    assert _trained(data, tmp_path / "w2", world=2) == reference
    assert _trained(data, tmp_path / "processes", "data.executor=processes") == reference
    assert check(RunFolder(tmp_path / "w2")).ok


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_that_was_killed_within_an_epoch_sees_the_same_patches(data: Path, tmp_path: Path) -> None:
    reference, folder = _trained(data, tmp_path / "reference"), tmp_path / "run"
    assert -9 in run_killed(2, train_rank, job_of(_run(data, folder, world=2)), 1)
    train(job_of(_run(data, folder, world=1)), 1)
    assert (weights(folder), curve(folder)) == reference and check(RunFolder(folder)).ok


class _Positional(nn.Module):
    """Two classes whose logits hang on the place within the window: what averages windows wrongly is seen."""

    def forward(self, images: Tensor) -> Tensor:
        self.shape = images.shape
        ramp = torch.arange(images.shape[2:].numel(), dtype=torch.float32).view(images.shape[2:])
        return torch.stack([images[:, 0] + ramp, images.sum(1) * ramp], 1)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(9, 7, 10), (3, 9, 5), (2, 3, 4), (4, 5, 6)])
def test_windows_are_averaged_as_in_a_plain_loop(mode: Any, shape: tuple[int, int, int]) -> None:
    size, overlap = (4, 5, 6), 0.5
    volume = torch.from_numpy(np.random.default_rng(0).random((1, 2, *shape), np.float32))
    found = slid(_Positional(), volume, SlidingWindowConfig(size=size, overlap=overlap, mode=mode, batch_size=3))
    lacking = [max(0, side - have) for side, have in zip(size, shape, strict=True)]
    beside = [(more // 2, more - more // 2) for more in lacking]
    padded = np.pad(volume[0].numpy(), [(0, 0), *beside], constant_values=-1).astype(np.float64)
    total, weight = np.zeros((2, *padded.shape[1:])), np.zeros(padded.shape[1:])
    weights = gaussian(size).astype(np.float64) if mode == "gaussian" else np.ones(size)
    for corner in corners(padded.shape[1:], size, overlap):
        place = tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True))
        logits = _Positional()(torch.from_numpy(padded[(slice(None), *place)])[None])[0].numpy()
        total[(slice(None), *place)] += logits * weights
        weight[place] += weights
    inside = tuple(slice(first, first + have) for (first, _), have in zip(beside, shape, strict=True))
    assert found.shape == (1, 2, *shape)
    assert np.allclose(found[0].numpy(), (total / weight)[(slice(None), *inside)], rtol=1e-5, atol=1e-5)


def test_the_number_of_windows_of_a_forward_changes_rounding_alone() -> None:
    model = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 3, padding=1)).eval()
    volume = torch.from_numpy(np.random.default_rng(0).random((1, 1, 24, 24, 24), np.float32))
    with torch.inference_mode():
        found = [slid(model, volume, SlidingWindowConfig(size=(12, 12, 12), batch_size=many)) for many in (1, 3, 8)]
        again = slid(model, volume.repeat(3, 1, 1, 1, 1), SlidingWindowConfig(size=(12, 12, 12), batch_size=3))
    assert all(torch.allclose(found[0], other, atol=1e-5) for other in found[1:])
    assert all(torch.equal(found[1][0], each) for each in again)  # how many volumes there are changes none


def test_training_does_not_slide_and_an_evaluation_does() -> None:
    windows = SlidingWindowConfig(size=(4, 4, 4), overlap=0.0, batch_size=1)
    task, model = VolumeSegmentation(setting(channels=1, windows=windows)), _Positional()
    arrays = {
        "volume": np.zeros((1, 1, 8, 8, 8), np.float32),
        "mask": np.ones((1, 8, 8, 8), np.uint8),
        "spacing": np.ones((1, 3), np.float32),
    }
    for train_it, side in ((True, 8), (False, 4)):
        batch: Masked = task.batch(arrays, train=train_it)
        assert task.logits(model, batch).shape == (1, 2, 8, 8, 8) and model.shape[2:] == (side,) * 3


def test_eval_reads_volumes_of_several_sizes_on_any_number_of_workers(data: Path, tmp_path: Path) -> None:
    """The evaluations of the training above had three volumes of two sizes; here `raycls eval` has them too."""
    config = tmp_path / "a.yaml"
    config.write_text(_TEXT + f"run: {{storage: {tmp_path}, name: a}}\nscale: {{workers: 0}}\n")
    for words in (("train", str(config), f"data.source.path={data}"), ("eval", str(tmp_path / "a"))):
        code, said = type_in(("raycls", *words))
        assert code == 0, said
    summary = json.loads((tmp_path / "a" / "predictions" / "test-last.json").read_text())
    assert summary["count"] == 3 and 0 <= summary["dice"] <= 1


def test_what_is_tried_before_a_run_is_one_window_however_large_the_volume() -> None:
    rng = np.random.default_rng(0)
    sample = {
        "volume": rng.random((2, 9, 3, 8), np.float32),
        "mask": rng.integers(0, 3, (9, 3, 8)).astype(np.uint8),
        "spacing": np.ones(3, np.float32),
    }
    task = VolumeSegmentation(setting(channels=1, windows=SlidingWindowConfig(size=(4, 5, 8))))
    part = task.part(sample)
    assert part["volume"].shape == (2, 4, 5, 8) and part["mask"].shape == (4, 5, 8)
    assert np.array_equal(part["volume"][:, :, :3], sample["volume"][:, :4]) and not part["mask"][:, 3:].any()
    assert task.example(part)[0].shape == (1, 2, 4, 5, 8)
    whole = VolumeSegmentation(setting(channels=1)).part(sample)
    assert all(whole[name] is sample[name] for name in sample)


@pytest.mark.parametrize("option", ["data.patch.size", "evaluate.sliding_window.size"])
@pytest.mark.parametrize("task", ["volume_classification", "segmentation"])
def test_a_task_without_use_for_patches_or_windows_is_refused(option: str, task: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"task: {{name: {task}}}\nevaluate: {{metric: loss}}\n")
    with pytest.raises(ConfigError, match=f"no effect beside task.name: {task}"):
        load(file, [f"{option}=[4, 4, 4]"])


def test_a_task_of_ones_own_says_whether_it_obeys(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VolumeSegmentation, "obeys", Segmentation.obeys)
    run = _run(data, tmp_path / "run")
    for changed, where in ((run, "data.patch.size"), (_whole(run), "evaluate.sliding_window.size")):
        dataset = open_dataset(changed.data)
        with raised(ConfigError, where=where):
            checked_task(changed, dataset.classes, plan_of(changed, dataset), lambda text: None)


def _whole(run: Any) -> Any:
    windows = run.evaluate.sliding_window.model_copy(update={"size": (4, 4, 4)})
    changed = {
        "data": run.data.model_copy(update={"patch": PatchConfig()}),
        "evaluate": run.evaluate.model_copy(update={"sliding_window": windows}),
    }
    return run.model_copy(update=changed)
