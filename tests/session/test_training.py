"""The promise: the same weights, to the bit, and the same order, on any number of ranks and with any executor."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from harness.jobs import curve, evaluate_rank, ledger, make_job, train, train_rank, weights, write_arrays
from harness.ranks import run_ranks
from PIL import Image

from raycls.data.images import operations
from raycls.data.order import Order
from raycls.errors import DataError, TrainError
from raycls.run.folder import RunFolder
from raycls.run.history import read
from raycls.run.ledgers.sample_ledger import check
from raycls.session import evaluation
from raycls.session.job import Job, World
from raycls.tasks.classification import Classification, Labelled
from raycls.train.ranks import ABORTED

_STEPS = ("train.micro_batches=4", "data.batch_size=32", "train.duration=2ep", "track.log_every=1st")


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    train(make_job(folder, data, *_STEPS, "train.ledger=pixels"))
    return folder


@pytest.mark.parametrize(
    ("world", "executor"),
    [(1, "inline"), (2, "inline"), (3, "inline"), (0, "ahead"), (2, "ahead"), (0, "processes"), (2, "processes")],
)
def test_same_bits_and_order_on_any_world(
    world: int, executor: str, data: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ahead, executor = executor == "ahead", "inline" if executor == "ahead" else executor
    job = make_job(folder, data, *_STEPS, "train.ledger=pixels", world=world, executor=executor)
    result = train(dataclasses.replace(job, ahead=ahead), world)
    assert (result["state"], result["step"]) == ("done", 8)
    assert weights(folder) == weights(reference)
    assert curve(folder) == curve(reference)
    assert ledger(folder) == ledger(reference)
    assert check(RunFolder(folder)).ok


def test_ledger_is_what_order_and_augmentation_say(data: Path, reference: Path, tmp_path: Path) -> None:
    order = Order(seed=0, count=99, batch_size=32, micro_batches=4)
    job = make_job(tmp_path / "run", data, *_STEPS)
    crop = operations.build(({"random_crop": {"size": 12, "padding": 2}}, "horizontal_flip"), train=True, image_size=12)
    lines = ledger(reference)
    assert len(lines) == 2 * 4 * 4
    for (epoch, step, micro), (ids, digests) in lines.items():
        assert epoch == (step - 1) // 4
        assert ids == order.micro(step - 1, micro).tolist()
        images = [crop(job.dataset.splits["train"].image(index), (0, epoch, index)) for index in ids]
        assert digests == [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    for epoch in (0, 1):
        trained = [index for (now, _, _), (ids, _) in lines.items() if now == epoch for index in ids]
        assert sorted(trained) == list(range(99))


def test_another_seed_is_another_run(data: Path, reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(make_job(folder, data, *_STEPS, "train.ledger=pixels", "run.seed=1"))
    assert weights(folder) != weights(reference)
    ours, theirs = ledger(folder), ledger(reference)
    assert [ours[where][0] for where in sorted(ours)] != [theirs[where][0] for where in sorted(theirs)]


_EVERYTHING = (
    "model.name=resnet18_cifar",
    "model.args={dropout: 0.3}",
    "optim.lr=0.02",
    "optim.args.momentum=0.9",
    "optim.weight_decay=0.001",
    "optim.clip_norm=0.5",
    "optim.ema=0.8",
    "loss.args.label_smoothing=0.1",
    "schedule.name=cosine",
    "schedule.warmup=2st",
    "train.micro_batches=4",
    "train.duration=3st",
    "data.batch_size=16",
    "checkpoint.every=100%",
    "evaluate.every=off",
    "track.log_every=1st",
)


@pytest.mark.slow
@pytest.mark.parametrize(("amp", "worlds"), [("off", (3,)), ("bf16", (2,))])
def test_same_bits_of_a_resnet_with_everything(amp: str, worlds: tuple[int, ...], tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=35, val=4)  # 16, 16 and 3 rows
    overrides = (*_EVERYTHING, f"train.amp={amp}")
    train(make_job(tmp_path / "alone", data, *overrides))
    records = curve(tmp_path / "alone")
    assert [record["lr"] for record in records[:2]] == pytest.approx([0.01, 0.02])
    assert max(record["grad_norm"] for record in records) > 0.5, "nothing was clipped"
    for world in worlds:
        folder = tmp_path / f"world-{world}"
        train(make_job(folder, data, *overrides, world=world), world)
        assert weights(folder) == weights(tmp_path / "alone"), f"world {world}"
        assert curve(folder) == records


def test_fp16_scales_the_loss_and_keeps_the_bits(data: Path, tmp_path: Path) -> None:
    overrides = (*_STEPS, "train.amp=fp16", "evaluate.every=off")
    folders = [tmp_path / f"world-{world}" for world in (0, 2)]
    train(make_job(folders[0], data, *overrides))
    train(make_job(folders[1], data, *overrides, world=2), 2)
    assert weights(folders[0]) == weights(folders[1])
    assert curve(folders[0]) == curve(folders[1])
    # torch starts at 2**16, which overflows half precision here: those steps are skipped and the scale halves
    scales = [record["loss_scale"] for record in curve(folders[0])]
    assert all(later in (earlier, earlier / 2) for earlier, later in zip([2.0**16, *scales], scales, strict=False))
    assert all(np.isfinite(record["loss"]) for record in curve(folders[0]))


def two_at_once(rank: int, world: int, one: Job, other: Job) -> str:
    """Rank 0 trains one run while rank 1 trains another: two processes, two run folders, one data file."""
    return train_rank(0, 1, (one, other)[rank])["state"]


def test_two_runs_at_the_same_time(data: Path, reference: Path, tmp_path: Path) -> None:
    jobs = [make_job(tmp_path / name, data, *_STEPS, "train.ledger=pixels") for name in ("one", "two")]
    assert run_ranks(2, two_at_once, *jobs) == ["done", "done"]
    for name in ("one", "two"):
        assert weights(tmp_path / name) == weights(reference)
        assert ledger(tmp_path / name) == ledger(reference)


def test_process_is_left_as_it_was(data: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", data, *_STEPS, "scale.threads=1")
    torch.set_num_threads(2)
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    train(job)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state(legacy=False)) == str(before[1])
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_operation_without_a_deterministic_kernel_ends_the_run_with_its_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Classification.loss

    def loss(self: Classification, model: torch.nn.Module, batch: Labelled) -> dict[str, torch.Tensor]:
        batch.images.flatten().put_(torch.tensor([0, 0]), torch.ones(2))
        return original(self, model, batch)

    monkeypatch.setattr(Classification, "loss", loss)
    with pytest.raises(TrainError, match="no deterministic kernel") as caught:
        train(make_job(tmp_path / "run", data, *_STEPS))
    assert caught.value.found == "put_, under exact"


@pytest.mark.parametrize(("reduction", "world"), [("exact", 3), ("fast", 3)])
def test_uneven_batches(reduction: str, world: int, tmp_path: Path) -> None:
    # 1,003 rows in 16 batches, the last one of 43, on ranks that share none of these numbers
    data = write_arrays(tmp_path / "data.npz", train=1003, val=10)
    folder = tmp_path / "run"
    overrides = ("data.batch_size=64", "train.duration=1ep", "train.ledger=ids", f"train.reduction={reduction}")
    result = train(make_job(folder, data, *overrides, world=world), world)
    assert (result["state"], result["step"]) == ("done", 16)
    assert sorted(index for ids, _ in ledger(folder).values() for index in ids) == list(range(1003))
    report = check(RunFolder(folder))
    assert (report.ok, report.samples, report.epochs) == (True, 1003, 1)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_fewer_rows_than_ranks(reduction: str, tmp_path: Path) -> None:
    # 9 rows in batches of 4: the last one has a single row for three ranks
    data = write_arrays(tmp_path / "data.npz", train=9, val=1)
    overrides = ("data.batch_size=4", "train.micro_batches=3", "train.duration=2ep", "train.ledger=ids")
    overrides = (*overrides, "track.log_every=1st", f"train.reduction={reduction}", "optim.lr=0.001")
    train(make_job(tmp_path / "three", data, *overrides, world=3), 3)
    assert check(RunFolder(tmp_path / "three")).ok
    train(make_job(tmp_path / "alone", data, *overrides))
    if reduction == "exact":
        assert weights(tmp_path / "three") == weights(tmp_path / "alone")
    counts = [record["count"] for record in curve(tmp_path / "three") if record["kind"] == "evaluate"]
    assert counts == [1, 1]


def test_evaluation_of_1003_rows_on_three_ranks(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=64, val=1003, classes=10)
    job = make_job(tmp_path / "run", data, "train.duration=4st", "evaluate.every=off", "evaluate.batch_size=64")
    train(job)
    job = dataclasses.replace(job, split="val")
    alone = evaluation.evaluate(job, World())
    assert alone["count"] == 1003
    for result in run_ranks(3, evaluate_rank, job):
        assert result == alone  # every digit, the loss included


def _with_a_broken_image(tmp_path: Path, executor: str, world: int, *more: str) -> Job:
    source = tmp_path / "images"
    for label in ("cat", "dog"):
        for index in range(10):
            path = source / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 12), (index, 0, 0)).save(path)
    options = ("data.source.name=folder", "data.split={train: 1.0, val: 0.0, test: 0.0}", "evaluate.every=off")
    options = (*options, "data.batch_size=5", "train.micro_batches=2")
    job = make_job(tmp_path / "run", source, *options, *more, world=world, executor=executor)
    (source / "dog" / "7.png").write_bytes(b"<html>404 Not Found</html>")
    return job


def failing(rank: int, world: int, job: Job) -> tuple[str, str]:
    """The error that a rank ends with."""
    try:
        train_rank(rank, world, job)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def test_unreadable_image_ends_every_rank_with_its_name(tmp_path: Path) -> None:
    errors = run_ranks(2, failing, _with_a_broken_image(tmp_path, "inline", 2))
    assert {kind for kind, _ in errors} == {"BadImageError", "TrainError"}
    assert ABORTED in [text for _, text in errors]
    assert any("7.png" in text for _, text in errors)


def test_unreadable_image_leaves_no_decoding_process(tmp_path: Path) -> None:
    before = _descendants()
    with pytest.raises(DataError, match=r"7\.png"):
        train(_with_a_broken_image(tmp_path, "processes", 0))
    assert _descendants() <= before


def test_unreadable_image_that_is_read_ahead_ends_the_run_at_its_own_step(tmp_path: Path) -> None:
    trained: list[list[int]] = []
    for ahead in (False, True):
        (tmp_path / str(ahead)).mkdir()
        job = _with_a_broken_image(tmp_path / str(ahead), "inline", 0, "data.prefetch=9", "track.log_every=1st")
        with pytest.raises(DataError, match=r"7\.png"):
            train(dataclasses.replace(job, ahead=ahead))
        trained.append([line["step"] for line in read(RunFolder(job.folder)) if line["kind"] == "train"])
        assert "raycls-read-ahead" not in {thread.name for thread in threading.enumerate()}
    assert trained[0] == trained[1]


def _descendants() -> set[int]:
    """Processes below this one, the fork server and its resource tracker left out: they serve all tests."""
    return {child.pid for server in psutil.Process().children() for child in server.children()}
