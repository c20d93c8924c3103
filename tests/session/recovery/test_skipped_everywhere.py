"""With `data.on_bad_image: skip` what reads the images of a run leaves out bad ones, and says how many."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.jobs import make_job, train, train_rank, train_rank_stopped
from harness.lacking import Small
from harness.ranks import run_ranks
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.data.stream import Stream
from raycls.errors import DataError
from raycls.export.average import Averaging, average, checkpoints_of
from raycls.export.pictures import pictures
from raycls.export.pruning.folder import place_of
from raycls.launch.range_test import Range, range_test
from raycls.run.folder import RunFolder
from raycls.session.data.mixed import mixed
from raycls.session.data.seen import seen
from raycls.session.job import Job
from raycls.session.prepare import plan_of
from raycls.session.probing.probe import Grid, probe, probed
from raycls.session.setup import make_maker
from raycls.session.speed.plain import plain_stream
from raycls.session.speed.steps import Steps, again, positions
from raycls.session.trained.trained import open_trained
from raycls.train.plan import Plan

_BAD = (2, 9, 23, 30)
"""Rows of the train split; of val the first two."""
_OPTIONS = (
    "data.source.name=folder",
    "data.on_bad_image=skip",
    "data.max_bad_fraction=0.2",
    "data.batch_size=8",
    "train.micro_batches=2",
    "train.duration=1ep",
    "checkpoint.every=3st",
    "checkpoint.keep=3",
    "augment.batch=[mixup]",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "data"
    random = np.random.RandomState(0)
    for split, count, bad in (("train", 40, _BAD), ("val", 12, (0, 1))):
        for index in range(count):
            file = folder / split / "ab"[index * 2 // count] / f"{index:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.randint(0, 128, (12, 12, 3)) + index * 2 // count * 100
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            if index in bad:
                file.write_bytes(b"<html>404</html>")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(make_job(folder, data, *_OPTIONS))
    return folder


def _config(folder: Path) -> Run:
    return load_text((folder / "config.yaml").read_text(), "config.yaml").run


def test_images_of_exports_averages_and_prunings_are_the_good_ones(run: Path) -> None:
    said: list[str] = []
    found = pictures(open_trained(str(run)), split="train", data=None, most=2**62, say=said.append)
    assert found.rows.tolist() == [row for row in range(40) if row not in _BAD]
    assert found.told == "split train without 4 bad images"
    assert any("4 bad images of split train left out: train/a/002.png" in line for line in said)
    assert len(found.truth) == len(found.keys) == 36
    few = pictures(open_trained(str(run)), split="val", data=None, most=3, say=said.append)
    assert few.rows.tolist() == [4, 8], "the bad image among the three is not replaced"


def test_an_average_takes_its_statistics_of_the_good_images(run: Path) -> None:
    trained = open_trained(str(run))
    facts = average(checkpoints_of(trained, "last:2"), place_of(trained, None, "averaged"), Averaging("recompute"))
    assert (facts["batch_norm"], facts["images"]) == ("recompute", 36)


def test_a_probe_is_fitted_on_the_good_images_and_lists_the_bad_ones(run: Path) -> None:
    of = RunFolder(str(run))
    asked = load_text(of.read_config(), "config.yaml", ["run.name=probe"]).run
    told: list[str] = []

    def probing() -> dict[str, Any]:
        return probe(probed(asked, of), Grid((1e-2,), 20), of=of, command=["raycls"], join=_nobody, say=told.append)

    facts = probing()
    assert facts["splits"] == {"train": 36, "val": 10}
    assert facts["scores"]["val"]["head"]["count"] == 10
    listed = [json.loads(line) for line in (run.parent / "probe" / "bad_images.jsonl").read_text().splitlines()]
    assert [line["path"][-7:-4] for line in listed] == ["002", "009", "023", "030", "000", "001"]
    assert probing()["scores"] == facts["scores"]
    assert len((run.parent / "probe" / "bad_images.jsonl").read_text().splitlines()) == 6


def _nobody(*_: object, **more: object) -> Any:
    raise AssertionError("nobody asked for Ray")


def test_a_range_test_skips_as_the_run_does(run: Path, tmp_path: Path) -> None:
    curve = range_test(_config(run), Range(1e-4, 1e-2, 12), str(tmp_path), say=_nothing, work=_nothing)
    assert len(curve.losses) == 12


def test_sheets_of_augmentation_show_good_images(run: Path) -> None:
    asked = _config(run)
    dataset = open_dataset(asked.data)
    _, images = seen(asked, dataset, epoch=0, count=40)
    assert sorted(image.id for image in images) == [row for row in range(40) if row not in _BAD]
    plan = plan_of(asked, dataset)
    shown = [mixed(asked, dataset, epoch=0, number=number) for number in range(10)]
    ids = [id for batch in shown if batch is not None for id in batch.ids]
    assert len(ids) == 36 and plan.samples == 40


def test_a_bench_trains_and_counts_the_same_good_images_by_either_loader(run: Path, data: Path, tmp_path: Path) -> None:
    asked, job = _config(run), make_job(tmp_path / "bench", data, *_OPTIONS)
    plan = Plan.from_dict(job.plan)
    maker = make_maker(asked, plan, job.dataset, 1, "train")
    plain = plain_stream(maker, job.dataset.splits["train"], plan.order, processes=0, pinned=False)
    own = Stream((maker(place) for place in positions(plan.order, 0)), positions(plan.order, 0))
    with ExitStack() as stack:
        steps = Steps(asked, job, plan, stack)
        assert [steps.take(stream, 0, 5).images for stream in (plain, own)] == [36, 36]
        short = maker(next(positions(plan.order, 0)))
        assert 0 < len(short.ids) < 8, "a batch of the bench has a bad image"
        assert steps.take(again(plan.order, short, 0), 0, 2).images == 16


@pytest.mark.parametrize("world", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_single_image_left_to_batch_norm_ends_the_run_alike_on_any_number_of_ranks(
    world: int, data: Path, tmp_path: Path
) -> None:
    """Of two pixels the second batch norm has one value per image and channel; of twelve it has nine."""
    small = ("augment.train=[{center_crop: {size: 2}}]", "augment.eval=[{center_crop: {size: 2}}]")
    options = (*_OPTIONS, "train.micro_batches=4", "augment.batch=[]")
    train(make_job(tmp_path / "large", data, *options))
    job = make_job(tmp_path / "small", data, *options, *small, world=world)
    if world:
        found = run_ranks(world, _refused, job)
        assert found[0] == found[1]
    else:
        with pytest.raises(DataError) as raised:
            train(job)
        found = [str(raised.value)]
    assert found[0].startswith(_ALONE) and "Expected more than 1 value per channel" in found[0]
    assert "with a larger data.batch_size or fewer train.micro_batches" in found[0]


_SMALL = (
    *_OPTIONS,
    "augment.train=[{center_crop: {size: 2}}]",
    "augment.eval=[{center_crop: {size: 2}}]",
    "augment.batch=[]",
    "checkpoint.every=1st",
    "train.on_out_of_memory=split",
)


@pytest.mark.parametrize("world", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when", ["in the step that is divided", "in a later one", "in one after a resume"])
def test_a_single_image_in_a_micro_batch_that_memory_divided_is_the_same_error(
    when: str, world: int, data: Path, tmp_path: Path
) -> None:
    """Step 1 has no bad image and step 2 one. Of two micro-batches of four images three are left, of four one."""
    options = (*_SMALL, "run.seed=7")
    job = make_job(tmp_path / "run", data, *options, world=world)
    order = Plan.from_dict(job.plan).order
    assert [len({*order.batch(step).tolist()} & {*_BAD}) for step in (0, 1)] == [0, 1]
    small = Small(1 if when == "in the step that is divided" else 0, 2)
    if when == "in one after a resume":
        with small.memory():
            train_rank_stopped(0, 1, job, 1, "sigterm")
        assert json.loads((tmp_path / "run/plan.json").read_text())["divided"] == [[0, 2]]
        job, small = make_job(tmp_path / "run", data, *options, world=world), _ENOUGH
    if world:
        found = run_ranks(world, _refused, job, small)
        assert found[0] == found[1]
    else:
        found = [_refused(0, 1, job, small)]
    assert found[0].startswith(_ALONE) and "Expected more than 1 value per channel" in found[0]
    assert "(of 4, since memory ran out) of step 2: " in found[0]


_ALONE = """bad images leave a micro-batch a single image, on which this network cannot be trained
  where: data.batch_size, train.micro_batches
  found: micro-batch """


_ENOUGH = Small(99, 99)
"""Memory for every step."""


def _refused(rank: int, world: int, job: Job, small: Small = _ENOUGH) -> str:
    with small.memory(rank), pytest.raises(DataError) as raised:
        train_rank(rank, world, job) if world > 1 else train(job)
    return str(raised.value)


def test_without_skip_the_error_names_the_option(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        train(make_job(tmp_path / "run", data, *_OPTIONS, "data.on_bad_image=error", "data.max_bad_fraction=0.01"))
    assert "add data.on_bad_image=skip to the command" in str(raised.value.fix)


def _nothing(_: object) -> None:
    """Not looked at."""
