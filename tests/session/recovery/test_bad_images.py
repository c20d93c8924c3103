"""Runs that skip bad images: the same bits and the same lists on any number of ranks, and across kills."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.jobs import curve, evaluate_rank, job_of, ledger, make_job, train, train_rank, train_rank_killed, weights
from harness.kills import run_killed
from harness.ranks import run_ranks
from PIL import Image
from pyarrow import parquet

from raycls.config.load import load_text
from raycls.data.making.bad import good_rows
from raycls.errors import ConfigError, DataError
from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check
from raycls.screen.run_text import ledger_lines
from raycls.screen.trained.summary_text import summary_lines
from raycls.session.job import Job
from raycls.session.scoring.options import Scoring

_TRAIN, _VAL = 200, 60
_BAD = {"train": range(7, _TRAIN, 20), "val": range(3, _VAL, 20)}
"""5 % of each split."""
_OPTIONS = (
    "data.source.name=folder",
    "data.on_bad_image=skip",
    "data.max_bad_fraction=0.06",
    "train.micro_batches=4",
    "data.batch_size=32",
    "train.duration=3ep",
    "train.ledger=pixels",
    "track.log_every=2st",
    "checkpoint.every=3st",
    "optim.ema=0.9",
    "augment.batch=[mixup]",
    "model.name=tiny_cnn",
    "model.args={width: 8, dropout: 0.2}",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """260 files of noise in two classes of another brightness, of which 13 are no images, in four ways."""
    folder = tmp_path_factory.mktemp("bad") / "data"
    random = np.random.RandomState(0)
    for split, count in (("train", _TRAIN), ("val", _VAL)):
        for index in range(count):
            file = folder / split / "ab"[index % 2] / f"{index:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.randint(0, 128, (12, 12, 3)) + index % 2 * 100
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            if index in _BAD[split]:
                whole = file.read_bytes()
                file.write_bytes((b"", whole[:60], b"<html>404</html>", b"\0" * 99)[index // 20 % 4])
    return folder


def _job(folder: Path, data: Path, *more: str, world: int = 0, executor: str = "inline") -> Job:
    return make_job(folder, data, *_OPTIONS, *more, world=world, executor=executor)


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process: 21 steps in three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    train(_job(folder, data))
    return folder


def _listed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "bad_images.jsonl").read_text().splitlines()]


def test_every_bad_image_is_listed_once_and_left_out_of_every_count(reference: Path) -> None:
    listed = _listed(reference)
    assert sorted((line["split"], line["path"]) for line in listed) == sorted(
        (split, f"{split}/{'ab'[index % 2]}/{index:03d}.png") for split, rows in _BAD.items() for index in rows
    )
    by_size = {line["bytes"]: line["reason"] for line in listed}
    assert by_size.keys() == {0, 60, 16, 99}
    assert "an empty file" in by_size[0] and "ends too early" in by_size[60] and "an HTML page" in by_size[16]
    evaluated = [record for record in curve(reference) if record["kind"] == "evaluate"]
    assert [record["count"] for record in evaluated] == [_VAL - 3] * 3
    trained = [row for ids, _ in ledger(reference).values() for row in ids]
    assert len(trained) == 3 * (_TRAIN - 10)
    report = check(RunFolder(reference))
    assert report.ok, report.problems
    assert len(report.skipped) == 10
    assert any("skipped as bad images: 10 samples" in line for line in ledger_lines(report))


@pytest.mark.parametrize(
    ("world", "executor"),
    [
        (1, "inline"),
        pytest.param(2, "processes", marks=pytest.mark.slow),
        pytest.param(3, "inline", marks=pytest.mark.slow),
    ],
)
def test_weights_ledgers_and_lists_are_the_same_on_any_number_of_ranks(
    world: int, executor: str, data: Path, reference: Path, tmp_path: Path
) -> None:
    more = ("data.processes=1",) if executor == "processes" else ("data.cache=memory",)
    train(_job(tmp_path / "run", data, *more, world=world, executor=executor), world)
    _assert_same(tmp_path / "run", reference)
    assert ledger(tmp_path / "run") == ledger(reference)


@pytest.mark.faults
@pytest.mark.slow
def test_a_kill_changes_nothing(data: Path, reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    codes = run_killed(2, train_rank_killed, _job(folder, data, world=2), 1, 11)
    assert codes[1] == -9
    listed = _listed(folder)
    assert 0 < len(listed) <= 13
    train(_job(folder, data, world=3), 3)
    _assert_same(folder, reference)


def _assert_same(folder: Path, reference: Path) -> None:
    assert weights(folder) == weights(reference)
    assert curve(folder) == curve(reference)
    assert (folder / "bad_images.jsonl").read_bytes() == (reference / "bad_images.jsonl").read_bytes()
    report = check(RunFolder(folder))
    assert report.ok, report.problems
    assert report.skipped == check(RunFolder(reference)).skipped


def test_a_skipped_sample_counts_as_one_that_was_left_out_of_the_data(data: Path, tmp_path: Path) -> None:
    """With one micro-batch the bits are those of a run whose plan leaves these samples out."""
    alone = ("train.micro_batches=1", "augment.batch=[]")
    job = _job(tmp_path / "skipped", data, *alone)
    train(job)
    bad = {name: _rows(job, name) for name in _BAD}
    splits = {name: good_rows(split, bad[name]) for name, split in job.dataset.splits.items()}
    planned = _job(tmp_path / "planned", data, *alone, "data.on_bad_image=error", "data.max_bad_fraction=0.01")
    plan = {**planned.plan, "left_out": bad["train"], "evaluate_rows": _VAL - 3}
    train(replace(planned, plan=plan, dataset=replace(planned.dataset, splits=splits)))
    assert weights(tmp_path / "skipped") == weights(tmp_path / "planned")
    losses = [[record["loss"] for record in curve(tmp_path / name)] for name in ("skipped", "planned")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def _rows(job: Job, name: str) -> list[int]:
    split = job.dataset.splits[name]
    bad = {f"{index:03d}.png" for index in _BAD[name]}
    return [row for row in range(len(split)) if split.key(row).rpartition("/")[2] in bad]


@pytest.mark.parametrize("reduction", ["exact", pytest.param("fast", marks=pytest.mark.slow)])
def test_batches_and_micro_batches_without_any_good_image(reduction: str, data: Path, tmp_path: Path) -> None:
    """Most files are bad and batches have four samples: some have none that is good, and make no update."""
    worse = tmp_path / "data"
    shutil.copytree(data, worse)
    for file in sorted((worse / "train").rglob("*.png"))[::7]:
        file.write_text("not an image")
    for file in [file for file in sorted((worse / "train").rglob("*.png")) if file.stem[-1] in "2345689"]:
        file.write_text("not an image")
    more = ("data.batch_size=4", "train.duration=1ep", "data.max_bad_fraction=0.9", f"train.reduction={reduction}")
    folders = []
    for world in (0, 2) if reduction == "exact" else (2, 2):
        folders.append(tmp_path / f"run-{len(folders)}")
        train(_job(folders[-1], worse, *more, world=world), world)
    losses = [record["loss"] for record in curve(folders[0]) if "loss" in record]
    empty = [ids for ids, _ in _steps(folders[0]).values() if not ids]
    assert len(empty) > 1 and any(0 < len(ids) < 4 for ids, _ in _steps(folders[0]).values())
    assert losses and np.isfinite(losses).all()
    assert weights(folders[0]) == weights(folders[1])
    assert check(RunFolder(folders[1])).ok


def _steps(folder: Path) -> dict[int, tuple[list[int], int]]:
    steps: dict[int, tuple[list[int], int]] = {}
    for (_, step, _), (ids, _) in ledger(folder).items():
        before, count = steps.get(step, ([], 0))
        steps[step] = ([*before, *ids], count + 1)
    return steps


@pytest.mark.parametrize("world", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_too_many_bad_images_end_the_run_and_a_higher_limit_resumes_it(
    world: int, data: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    low = _job(folder, data, "data.max_bad_fraction=0.04", world=world)
    if world:
        codes = run_killed(world, train_rank, low)
        assert codes == [1, 1]
    else:
        with pytest.raises(DataError, match="too many bad images in the split train") as raised:
            train(low)
        assert raised.value.found is not None and raised.value.found.startswith("9 of 200 samples so far: train/")
        assert raised.value.valid == "at most 8, data.max_bad_fraction is 0.04"
        assert "data.max_bad_fraction=0.09" in str(raised.value.fix)
    assert sum(line["split"] == "train" for line in _listed(folder)) == 9
    train(_job(folder, data, world=world), world)
    _assert_same(folder, reference)


def test_a_run_that_met_a_bad_image_resumes_with_skip(data: Path, reference: Path, tmp_path: Path) -> None:
    """Nobody has to know before: the run that ended goes on, and is the run that skipped from the start."""
    folder = tmp_path / "run"
    shutil.copytree(data, tmp_path / "data")
    error = ("data.on_bad_image=error", "data.max_bad_fraction=0.01")
    with pytest.raises(DataError):
        train(_job(folder, tmp_path / "data", *error))
    assert not (folder / "bad_images.jsonl").exists()
    train(_job(folder, tmp_path / "data"))
    _assert_same(folder, reference)


def test_a_file_that_cannot_be_read_is_never_a_bad_image(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    job = _job(tmp_path / "run", tmp_path / "data")
    (tmp_path / "data" / "train" / "a" / "100.png").unlink()
    with pytest.raises(DataError, match="cannot read an image file"):
        train(job)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_evaluation_leaves_them_out_of_every_number(world: int, data: Path, reference: Path, tmp_path: Path) -> None:
    run = load_text((reference / "config.yaml").read_text(), "config.yaml", [f"scale.workers={world}"]).run
    job = job_of(run)
    job = replace(job, split="val", scoring=Scoring(), plan={**job.plan, "evaluate_batch": 7})
    found = run_ranks(world, evaluate_rank, job)[0]
    assert found["count"] == _VAL - 3
    assert found["bad_images"]["count"] == 3
    assert [file["path"][-7:] for file in found["bad_images"]["files"]] == ["003.png", "023.png", "043.png"]
    assert "3 skipped and not counted" in "\n".join(summary_lines(found))
    rows = parquet.read_table(reference / found["predictions"]).to_pylist()
    assert len(rows) == _VAL - 3
    assert not any(row["key"].endswith("003.png") for row in rows)
    assert found["top1"] == pytest.approx(sum(row["label"] == row["predicted"] for row in rows) / (_VAL - 3))
    assert all(row["label"] == row["key"].split("/")[1] for row in rows)


def test_batch_norm_over_all_workers_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bad images may leave it none"):
        _job(tmp_path / "run", data, "train.micro_batches=2", "train.batch_norm=sync", world=2)
