"""Every file in configs/ is a run that could start: it loads, and its names and arguments exist."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from harness.jobs import job_of, make_job, train, write_arrays
from PIL import Image

from raycls.config.load import load
from raycls.config.space.check import apply, space_of
from raycls.data.images.operations import build
from raycls.data.source import check_source
from raycls.models.zoo import check
from raycls.run.folder import RunFolder
from raycls.run.history import read
from raycls.train.schedules import build_schedule

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
SEARCHES = [file for file in FILES if file.stem.startswith("search_")]


def test_the_promised_files_are_there_and_no_more_than_fifteen() -> None:
    names = {file.stem for file in FILES}
    assert {"digits", "cifar10_small", "cifar10_resnet18", "imagenet_resnet50", "finetune_folder"} <= names
    assert {"search_digits", "search_cifar10"} <= names
    assert len(names) <= 15


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_header_says_what_command_and_expected(file: Path) -> None:
    lines = file.read_text().splitlines()
    header = lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))]
    words = [line[2:].split(":")[0] for line in header if line[2:3] != " "]
    assert words == ["What", "Command", "Expected"]
    command = next(line for line in header if line.startswith("# Command:"))
    assert f"configs/{file.name}" in command


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_and_arguments_exist(file: Path) -> None:
    run = load(file).run
    assert run.run.name == file.stem
    assert isinstance(run.train.micro_batches, int)  # auto would make another number of workers another run
    check_source(run.data)
    check(run.model)
    for operations, training in ((run.augment.train, True), (run.augment.eval, False)):
        build(operations, train=training, image_size=run.data.image_size)
    build_schedule(run.schedule, steps_per_epoch=100, total_steps=1000)


@pytest.mark.parametrize("file", SEARCHES, ids=lambda file: file.stem)
def test_every_trial_of_a_search_could_start(file: Path) -> None:
    run = load(file).run
    assert run.search.trials > 1
    trials = [apply(run, chosen) for chosen in space_of(run).corners(32)]
    assert len(trials) > 10
    for trial in trials:
        check(trial.model)
        build(trial.augment.train, train=True, image_size=trial.data.image_size)


@pytest.mark.parametrize("file", [file for file in FILES if file not in SEARCHES], ids=lambda file: file.stem)
def test_files_stand_on_their_own(file: Path) -> None:
    origins = set(load(file).origins.values())
    assert all(origin == "default" or origin.startswith(f"{file.name}:") for origin in origins)
    assert load(file).run.search.space == {}


@pytest.mark.parametrize("file", SEARCHES, ids=lambda file: file.stem)
def test_a_search_extends_the_config_it_varies(file: Path) -> None:
    files = {origin.partition(":")[0] for origin in load(file).origins.values()} - {"default", file.name}
    assert len(files) == 1
    assert files < {other.name for other in FILES}


def test_imagenet_rate_falls_at_epochs_30_60_and_80() -> None:
    run = load(CONFIGS / "imagenet_resnet50.yaml").run
    steps = 1252  # of 1,281,167 images in batches of 1,024
    schedule = build_schedule(run.schedule, steps_per_epoch=steps, total_steps=90 * steps)

    def factor(epoch: int, step: int = 0) -> float:
        return schedule.factor(epoch * steps + step)

    assert factor(0) == pytest.approx(1 / (5 * steps))
    assert factor(5) == 1
    for epoch, after in ((30, 0.1), (60, 0.01), (80, 0.001)):
        assert factor(epoch, -1) == pytest.approx(10 * after)
        assert factor(epoch) == pytest.approx(after)


def test_readme_of_the_configs_lists_each() -> None:
    text = (CONFIGS / "README.md").read_text()
    assert all(f"`{file.name}`" in text for file in FILES)


_SMALL = (
    "data.executor=inline",
    "data.batch_size=8",
    "train.duration=2st",
    "train.amp=off",
    "scale.workers=0",
    "data.source.name=arrays",
)
_SHORT: dict[str, tuple[str, ...]] = {
    "cifar10_fast": ("schedule.args.peak=2st", "evaluate.split=val"),
    "pretrain_simclr": ("schedule.warmup=0st", "evaluate.every=1ep"),
    "imbalanced": ("schedule.warmup=0st", "evaluate.split=val", "evaluate.every=1ep"),
    "imagenet_resnet50_strong": (
        *("data.image_size=32", "schedule.warmup=0st", "data.repeats=1", "scale.device=cpu", "train.reduction=exact"),
        "train.micro_batches=2",
    ),
    "finetune_vit": (
        *("data.image_size=32", "model.weights=null", "model.args={image_size: 32}", "schedule.warmup=0st"),
        *("augment.off_after=off", "train.micro_batches=2"),
    ),
    "distill_mobilenet": ("task.args.teacher=TEACHER", "model.weights=null", "model.args={}", "schedule.warmup=0st"),
}
"""Recipes that need more than their data, and what stands in for it here: no weights are downloaded."""


@pytest.mark.nightly
@pytest.mark.parametrize("name", _SHORT)
def test_a_recipe_trains_a_few_steps(name: str, tmp_path: Path) -> None:
    """With its own network, task, operations and optimizer, on small images."""
    data = write_arrays(tmp_path / "data.npz", train=16, val=4, size=40)
    train(make_job(tmp_path / "teacher", data, "train.duration=1st"))
    short = [option.replace("TEACHER", str(tmp_path / "teacher")) for option in _SHORT[name]]
    run = load(CONFIGS / f"{name}.yaml", [*_SMALL, *short, f"data.source.path={data}", f"run.storage={tmp_path}"]).run
    result = train(job_of(run))
    assert (result["state"], result["step"]) == ("done", 2)


@pytest.mark.slow
def test_the_recipe_of_several_labels_trains_a_few_steps(tmp_path: Path) -> None:
    """With its own network, loss, operations and optimizer, on a manifest of lists: squares of three colours."""
    lines: list[str] = []
    for index in range(20):
        there = [bool(index >> place & 1) for place in range(3)]
        pixels = np.full((40, 40, 3), 30, np.uint8)
        pixels[10:30, 10:30] += np.array(there, np.uint8) * np.uint8(180)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        label = [name for name, one in zip(("red", "green", "blue"), there, strict=True) if one]
        lines.append(json.dumps({"path": f"{index}.png", "label": label}))
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    small = [option for option in _SMALL if not option.startswith("data.source")]
    own = ("data.image_size=32", "augment.train=[{random_resized_crop: {size: 32, scale: [0.4, 1]}}, horizontal_flip]")
    rest = (*own, "model.weights=null", "schedule.warmup=0st", "evaluate.every=1ep", "train.micro_batches=2")
    split = "data.split={train: 0.8, val: 0.2, test: 0.0}"  # 16 and 4
    where = f"data.source.path={tmp_path}/labels.jsonl", f"run.storage={tmp_path}"
    run = load(CONFIGS / "multilabel.yaml", [*small, *rest, split, *where]).run
    assert (run.task.args, run.data.source.args) == (
        {"gamma_positive": 0.0, "gamma_negative": 4.0},
        {"multilabel": True},
    )
    result = train(job_of(run))
    assert (result["state"], result["step"]) == ("done", 2)
    (evaluated,) = [record for record in read(RunFolder(str(tmp_path / "multilabel"))) if record["kind"] == "evaluate"]
    assert 0 < evaluated["map"] <= 1
