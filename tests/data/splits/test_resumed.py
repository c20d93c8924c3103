"""Splits by groups and by folds through a kill: a run resumed by other workers is the run that nobody touched."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from harness.errors import raised
from harness.jobs import job_of, train, train_rank_killed, train_rank_stopped, weights
from harness.ranks import run_ranks
from harness.runs import seen
from PIL import Image

from raycls.config.load import load_text, to_yaml
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.ledgers import sample_ledger
from raycls.session.job import Job

_SPLITS = {
    "grouped": ("data.group=patient",),
    "folded": ("data.fold={index: 1, of: 3}",),
    "both": ("data.group=patient", "data.fold={index: 2, of: 3}"),
}


@pytest.fixture(autouse=True)
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 images of 20 patients, who have 1 to 5 of them."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(5)
    owners = np.sort(np.concatenate([np.arange(20), random.integers(0, 20, 40)])).tolist()
    with (tmp_path / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "patient", "site"])
        for at, owner in enumerate(owners):
            pixels = random.integers(0, 120, (8, 8, 3)) + 60 * (at % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{at:02d}.png")
            rows.writerow([f"{at:02d}.png", "ab"[at % 2], f"p{owner}", f"s{owner % 7}"])


def _job(name: str, *overrides: str) -> Job:
    options = [
        "run.storage=runs",
        f"run.name={name}",
        *("data.source={name: manifest, path: images.csv}", "data.image_size=8", "data.batch_size=8"),
        *("augment.train=[horizontal_flip]", "augment.eval=[]", "optim.lr=0.05", "train.amp=off"),
        *("model.name=tiny_cnn", "model.args={width: 8}", "train.duration=2ep", "train.micro_batches=4"),
        *("evaluate.keep=last", "scale.workers=0", "data.executor=inline", "checkpoint.every=1st"),
        "train.ledger=pixels",
    ]
    return job_of(load_text(to_yaml(load_text("", "run.yaml", [*options, *overrides]).run), "run.yaml").run)


@pytest.mark.parametrize("kind", _SPLITS)
def test_a_killed_run_keeps_its_groups_and_folds_on_another_number_of_workers(kind: str) -> None:
    options = _SPLITS[kind]
    whole = _job("whole", *options)
    train(whole)
    with pytest.raises(Exception, match=r"died|exit|killed"):
        run_ranks(2, train_rank_killed, _job("killed", *options), 1, 4)
    assert not Path("runs/killed/model").exists()
    again = _job("killed", *options)
    assert again.dataset.fingerprint == whole.dataset.fingerprint
    train(again, 3)
    assert weights(Path("runs/killed")) == weights(Path("runs/whole"))
    assert seen(Path("runs/killed")) == seen(Path("runs/whole"))
    report = sample_ledger.check(RunFolder("runs/killed"))
    assert report.ok, report.problems
    splits = again.dataset.splits
    if "data.group=patient" in options:
        owners = {name: {*split.about["patient"]} for name, split in splits.items()}
        assert not owners["train"] & owners["val"] and not owners["train"] & owners["test"]


@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        ("grouped", "data.group=site", "data.group: patient -> site"),
        ("grouped", "data.group=off", "data.group: patient -> 'off'"),
        ("folded", "data.fold.index=0", "data.fold.index: 1 -> 0"),
        ("folded", "data.fold.of=4", "data.fold.of: 3 -> 4"),
        ("folded", "data.fold.of=off", "data.fold.of: 3 -> 'off'"),
    ],
)
def test_other_groups_or_folds_at_resume_are_refused_by_name(kind: str, change: str, found: str) -> None:
    train_rank_stopped(0, 1, _job("run", *_SPLITS[kind]), 2, "sigint")
    assert [*Path("runs/run/checkpoints").glob("step-00000002/manifest.json")] and not Path("runs/run/model").exists()
    with raised(ConfigError, what="this run was started with another config", found=found):
        _job("run", *_SPLITS[kind], change)
    train(_job("run", *_SPLITS[kind]))
    assert Path("runs/run/model").exists()
