"""Segmentation: the same bits on any number of workers, through a kill, and metrics as counted case by case."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.jobs import curve, job_of, train, train_rank, weights
from harness.kills import run_killed
from harness.masks import CLASSES, lesion, write_images, write_volumes
from harness.pages import type_in
from harness.tasks import setting

from raycls.config.load import load_text
from raycls.config.sections.task import TaskConfig
from raycls.data.making.bad import BadImageError
from raycls.data.source import open_dataset
from raycls.data.volumes.reading import Wanted
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check
from raycls.session.setup import make_arrays
from raycls.tasks.build import build
from raycls.tasks.scores.masks import average_surface_distance, hausdorff95, overlap
from raycls.tasks.segmentation.cases import case_of
from raycls.tasks.segmentation.task import Masked, Segmentation

_IMAGES = """
data: {source: {name: masks, args: {classes: [background, disc, spot]}}, batch_size: 6, image_size: 16}
augment:
  train: [{rotation: {degrees: 20}}, {random_crop: {size: 16}}, horizontal_flip, {color_jitter: {brightness: 0.2}}]
  eval: [{center_crop: {size: [24, 24]}}]
task: {name: segmentation, args: {ignore_index: 255}}
model: {name: unet, args: {width: 8, depth: 2}}
optim: {lr: 0.05}
train: {duration: 2ep, micro_batches: 2, amp: off, ledger: pixels}
track: {log_every: 1st}
checkpoint: {every: 2st}
evaluate: {keep: last, metric: dice}
"""
_VOLUMES = """
data: {source: {name: masks, args: {classes: [background, lesion]}}, batch_size: 4, window: [bone]}
augment: {train: [{random_crop: {size: [8, 16, 16]}}, flip, noise], eval: []}
task: {name: volume_segmentation}
model: {name: unet, in_channels: 1, args: {dimensions: 3, width: 8, depth: 2}}
train: {duration: 2ep, micro_batches: 2, amp: off}
track: {log_every: 1st}
evaluate: {keep: last, metric: dice}
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "cells", {"train": 12, "val": 4, "test": 4})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes") / "ct", {"train": 4, "val": 2, "test": 2})


def _run(text: str, data: Path, folder: Path, *overrides: str, world: int = 0) -> Any:
    names = [f"run.storage={folder.parent}", f"run.name={folder.name}", f"data.source.path={data}"]
    return load_text(text, "a.yaml", [*names, f"scale.workers={world}", "data.executor=inline", *overrides]).run


def _trained(text: str, data: Path, folder: Path, world: int = 0) -> tuple[Any, Any]:
    assert train(job_of(_run(text, data, folder, world=world)), world)["state"] == "done"
    return weights(folder), curve(folder)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["images", "volumes"])
def test_the_same_bits_in_one_process_and_on_one_and_two_workers(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    text, data = (_IMAGES, _VOLUMES)[kind == "volumes"], request.getfixturevalue(kind)
    found = [
        _trained(text, data, tmp_path / f"w{world}", world) for world in ((0, 2) if kind == "volumes" else (0, 1, 2))
    ]
    assert all(each == found[0] for each in found[1:])


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_that_was_killed_on_two_workers_ends_on_one_with_the_same_bits(images: Path, tmp_path: Path) -> None:
    reference, folder = _trained(_IMAGES, images, tmp_path / "reference"), tmp_path / "run"
    assert -9 in run_killed(2, train_rank, job_of(_run(_IMAGES, images, folder, world=2)), 3)
    train(job_of(_run(_IMAGES, images, folder, world=1)), 1)
    assert (weights(folder), curve(folder)) == reference and check(RunFolder(folder)).ok


def test_eval_writes_what_each_case_is_worth(volumes: Path, tmp_path: Path) -> None:
    """The table against the functions of the scores, and the means against the table."""
    config = tmp_path / "a.yaml"
    config.write_text(_VOLUMES + f"run: {{storage: {tmp_path}, name: a}}\nscale: {{workers: 0}}\n")
    for words in (("train", str(config), f"data.source.path={volumes}"), ("eval", str(tmp_path / "a"))):
        code, said = type_in(("raycls", *words))
        assert code == 0, said
    assert "predictions/test-last.csv" in said and re.search(r"lesion: dice \d\.\d{4}", said), said
    with (tmp_path / "a" / "predictions" / "test-last.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["background", "lesion"] * 2
    summary = json.loads((tmp_path / "a" / "predictions" / "test-last.json").read_text())
    mine = [float(row["dice"]) for row in rows if row["class"] == "lesion"]
    assert summary["dice"] == pytest.approx(np.mean(mine), abs=1e-8)
    assert summary["per_class"]["lesion"]["pixels"] == sum(int(r["true"]) for r in rows if r["class"] == "lesion")
    for words, where in (
        (("eval", str(tmp_path / "a"), "--tta", "mirror"), "--tta"),
        (("report", str(tmp_path / "a")), ""),
    ):
        code, said = type_in(("raycls", *words))
        assert (code, where in said) == (2 if where else 0, True), said


def test_a_volume_and_its_mask_are_cut_and_resampled_alike(volumes: Path, tmp_path: Path) -> None:
    run = _run(_VOLUMES, volumes, tmp_path / "run", "data.spacing=[5, 2, 1.5]")
    split = open_dataset(run.data).splits["train"]
    sample = make_arrays(run, split.classes)(split, 1, (0, -1, 1), train=False)
    assert sample["volume"].shape == (1, 5, 10, 12) and sample["mask"].shape == (5, 10, 12)
    assert sample["spacing"].tolist() == [5, 2, 1.5]
    run = _run(_VOLUMES, volumes, tmp_path / "run", "augment.train=[{random_crop: {size: [6, 12, 12]}}, flip]")
    arrays = make_arrays(run, split.classes)
    for epoch in range(4):
        cut = arrays(split, 1, (0, epoch, 1), train=True)
        value = cut["volume"][0] * 1800 - 400  # the window bone back to Hounsfield units
        assert np.array_equal(cut["mask"], lesion(np.round(value)) + 1) and cut["mask"].shape == (6, 12, 12)


def test_counts_are_those_of_the_scores_with_empty_masks_and_ignored_pixels() -> None:
    task, rng = Segmentation(setting(classes=CLASSES)), np.random.default_rng(0)
    codes, found = rng.integers(0, 4, (6, 8, 8)).astype(np.uint8), rng.integers(0, 3, (6, 8, 8))
    codes[0], found[0] = 1, 0  # one class alone, and all right
    codes[1][codes[1] == 3], found[2][found[2] == 1] = 1, 0
    logits = torch.nn.functional.one_hot(torch.from_numpy(found), 3).movedim(-1, 1).float()
    batch = Masked(logits, torch.from_numpy(codes), torch.tensor([[1.0, 2.0]] * 6))
    counts = {name: value.numpy() for name, value in task.counts(torch.nn.Identity(), batch).items()}
    summary, cases = task.summary(counts), task.rows(torch.nn.Identity(), batch)["cases"].numpy()
    for label, name in enumerate(CLASSES):
        pairs = [(code == label + 1, (one == label) & (code > 0)) for code, one in zip(codes, found, strict=True)]
        dice = [overlap(*pair).dice for pair in pairs]
        assert summary["per_class"][name]["dice"] == pytest.approx(np.nanmean(dice))
        assert np.allclose(cases[:, label, 0], dice, equal_nan=True)
        far = [[hausdorff95(*pair, (1, 2)), average_surface_distance(*pair, (1, 2))] for pair in pairs]
        assert np.allclose(cases[:, label, 2:4], far, equal_nan=True)
    assert np.isnan(cases[0, 1, 0]) and summary["per_class"]["spot"]["absent"] == 1
    assert case_of(np.full((2, 2), 2, np.uint8), np.zeros((2, 2)), 2, (1, 1))[1].tolist()[:4] == [0, 0, np.inf, np.inf]


@pytest.mark.parametrize("loss", ["ce_dice", "cross_entropy", "dice", "tversky", "focal"])
def test_losses_fall_towards_the_truth_and_leave_out_what_is_ignored(loss: str) -> None:
    task = build(TaskConfig(name="segmentation", args={"loss": loss}), setting(classes=CLASSES))
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 4, (3, 8, 8)).astype(np.uint8))
    truth = torch.nn.functional.one_hot((codes.long() - 1).clamp_min(0), 3).movedim(-1, 1).float()

    def of(logits: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
        return task.loss(torch.nn.Identity(), Masked(logits[rows], codes[rows], torch.ones(3, 2)[rows]))["loss"]

    none, right, wrong = torch.zeros(3, 3, 8, 8), 20 * truth, -20 * truth
    assert of(right) < 0.01 < of(none) < of(wrong)
    changed = torch.where(codes[:, None] == 0, -right, right)
    assert torch.equal(of(changed), of(right))
    assert torch.allclose(of(none), of(none, slice(0, 1)) + of(none, slice(1, 3)))


def test_cross_entropy_and_focal_are_torch_s() -> None:
    logits = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    codes = torch.randint(0, 4, (2, 5, 5), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for loss, gamma in (("cross_entropy", 0), ("focal", 2)):
        task = build(TaskConfig(name="segmentation", args={"loss": loss}), setting(classes=CLASSES))
        found = task.loss(torch.nn.Identity(), Masked(logits, codes, torch.ones(2, 2)))["loss"]
        costs = torch.nn.functional.cross_entropy(logits, codes.long() - 1, reduction="none", ignore_index=-1)
        costs = costs * (1 - (-costs).exp()) ** gamma
        wanted = torch.stack([each[code > 0].mean() for each, code in zip(costs, codes, strict=True)]).sum()
        assert torch.allclose(found, wanted)


@pytest.mark.parametrize(
    ("name", "args", "options", "where"),
    [
        ("segmentation", {"values": [0, 7]}, {}, "task.args.values, task.args.ignore_index"),
        ("segmentation", {"ignore_index": 1}, {}, "task.args.values, task.args.ignore_index"),
        ("segmentation", {"gamma": 1.0}, {}, "task.args"),
        ("segmentation", {}, {"label_smoothing": 0.1}, "loss"),
        ("volume_segmentation", {}, {"channels": 3, "volumes": Wanted()}, "model.in_channels, data.window"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, args: dict[str, Any], options: dict[str, Any], where: str) -> None:
    with raised(ConfigError, where=where):
        build(TaskConfig(name=name, args=args), setting(classes=CLASSES, **options))


def test_a_mask_that_cannot_be_read_leaves_its_batch_as_a_bad_image_does(tmp_path: Path) -> None:
    """Whichever of both files is damaged; without the option the file is named."""
    for text, write, suffix in ((_IMAGES, write_images, ".png"), (_VOLUMES, write_volumes, ".nii.gz")):
        data = write(tmp_path / suffix / "data", {"train": 6, "val": 3})
        for name in ("train/masks/2", "val/masks/1"):
            file = data / f"{name}{suffix}"
            file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
        folder = tmp_path / suffix / "skip"
        skip = ("data.on_bad_image=skip", "data.max_bad_fraction=0.5")
        assert train(job_of(_run(text, data, folder, *skip)), 0)["state"] == "done"
        told = [json.loads(line) for line in (folder / "bad_images.jsonl").read_text().splitlines()]
        assert {(each["split"], each["path"].rpartition("/")[2]) for each in told} == {
            ("train", f"2{suffix}"),
            ("val", f"1{suffix}"),
        }
        with raised(BadImageError, fix=re.compile("add data.on_bad_image=skip")):
            train(job_of(_run(text, data, tmp_path / suffix / "error")), 0)


def test_the_metric_of_a_segmentation_is_its_dice(tmp_path: Path) -> None:
    def metric(*overrides: str) -> str:
        return load_text("data: {source: {name: digits}}", "a.yaml", overrides).run.evaluate.metric

    assert metric() == metric("task.name=volume_classification") == "top1"
    assert metric("task.name=segmentation") == metric("task.name=volume_segmentation") == "dice"
    assert metric("task.name=segmentation", "evaluate.metric=loss") == "loss"
    assert metric("task.name=segmentation", "evaluate.keep=last") == "dice"


def test_other_commands_refuse_a_run_of_masks(tmp_path: Path, images: Path) -> None:
    _trained(_IMAGES, images, tmp_path / "run")
    for command in ("prune", "serve"):
        code, said = type_in(("raycls", command, str(tmp_path / "run")))
        assert code == 2 and "answers are masks" in said, said
