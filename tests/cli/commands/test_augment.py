"""`raycls augment`: the sheet has the very pixels that the training makes, at the place where the sheet says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.command_line import Result
from harness.jobs import job_of, train, write_arrays
from PIL import Image

from raycls.config.load import load
from raycls.config.sections.run import Run
from raycls.data.slices import TRAIN, Position
from raycls.data.source import Dataset, open_dataset
from raycls.data.splits.limit import Limit
from raycls.report.plots.sheet import Row, draw
from raycls.session.data.mixed import mixed
from raycls.session.data.seen import seen
from raycls.session.prepare import plan_of
from raycls.session.setup import make_maker
from raycls.tasks.classification import Classification, Labelled
from raycls.tasks.multilabel import MultiLabel

_CONFIG = """
data: {source: {name: arrays, path: data.npz}, batch_size: 4, image_size: 12}
augment:
  train: [{random_crop: {size: 12, padding: 2}}, {random_choice: {operations: [equalize, {rotation: {degrees: 30}}]}}, aug_mix]
  eval: [{resize: {size: 10, fit: pad}}]
  off_after: 2ep
train: {duration: 3ep}
"""  # noqa: E501
_TINY = ("model={name: tiny_cnn, args: {width: 8}}", "train.amp=off", "scale.workers=0", "data.executor=inline")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_arrays(tmp_path / "data.npz", train=10, val=4)
    (tmp_path / "c.yaml").write_text(_CONFIG)
    return tmp_path


def _opened(project: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Dataset]:
    monkeypatch.chdir(project)
    run = load(project / "c.yaml").run
    return run, open_dataset(run.data)


@pytest.mark.parametrize(("epoch", "repeats"), [(0, 1), (1, 1), (2, 1), (1, 3)])
def test_the_last_stage_is_what_the_training_makes(
    epoch: int, repeats: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "c.yaml").write_text(_CONFIG.replace("batch_size", f"repeats: {repeats}, batch_size"))
    run, dataset = _opened(project, monkeypatch)
    plan = plan_of(run, dataset)
    maker = make_maker(run, plan, dataset, 1, "val")
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    trained = [maker(Position(TRAIN, epoch, step, 0, 0)) for step in steps]
    operations, images = seen(run, dataset, epoch=epoch, count=99)
    assert [image.id for image in images] == [index for part in trained for index in part.ids.tolist()]
    expected = [pixels for part in trained for pixels in part.arrays["image"]]
    for image, pixels in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image.stages[-1].pixels, pixels)
        np.testing.assert_array_equal(image.stages[0].pixels, np.asarray(dataset.splits["train"].image(image.id)))
        assert len(image.stages) == len(operations) + 1
    assert len(operations) == (1 if epoch == 2 else 3)  # the run ends with the operations of evaluation


def test_the_command_writes_the_sheet(raycls_command: Callable[..., Result], project: Path) -> None:
    result = raycls_command("augment", "c.yaml", "--count=3", "--epoch=1", "--out=seen.png")
    assert (result.code, result.out) == (
        0,
        "wrote seen.png: 3 images of epoch 1, before and after 3 operations\n",
    )
    run = load(project / "c.yaml").run
    images = seen(run, open_dataset(run.data), epoch=1, count=3)[1]
    sheet = np.asarray(Image.open(project / "seen.png"))
    rows = [Row("", [(stage.pixels, "") for stage in image.stages]) for image in images]
    heads = ["as decoded", "random_crop size: 12, padding: 2", "", ""]
    boxes = draw("", ["as decoded", *seen(run, open_dataset(run.data), epoch=1, count=1)[0]], rows).boxes
    assert seen(run, open_dataset(run.data), epoch=1, count=1)[0][0] == heads[1]
    for image, places in zip(images, boxes, strict=True):
        for stage, (left, top, right, bottom) in zip(image.stages, places, strict=True):
            assert (right - left, bottom - top) == (144, 144)  # 12 pixels, each a square of 12
            np.testing.assert_array_equal(sheet[top + 6 : bottom : 12, left + 6 : right : 12], stage.pixels)


def test_the_sheet_of_a_run_on_few_samples_has_those_that_it_trains(
    raycls_command: Callable[..., Result], project: Path
) -> None:
    words = ["train.overfit=3", "augment.eval=[{center_crop: {size: 12}}]"]
    result = raycls_command("augment", "c.yaml", *words, "--out=seen.png")
    assert (result.code, result.out) == (0, "wrote seen.png: 3 images of epoch 0, before and after 1 operations\n")
    run = load(project / "c.yaml", words).run
    dataset = open_dataset(run.data, Limit(3, same=True))
    trained = make_maker(run, plan_of(run, dataset), dataset, 1, "val")(Position(TRAIN, 0, 0, 0, 0)).arrays["image"]
    sheet = np.asarray(Image.open(project / "seen.png"))
    rows = [Row("", [(pixels, ""), (pixels, "")]) for pixels in trained]
    boxes = draw("", ["as decoded", "center_crop size: 12"], rows).boxes
    for pixels, (_, (left, top, right, bottom)) in zip(trained, boxes, strict=True):
        np.testing.assert_array_equal(sheet[top + 6 : bottom : 12, left + 6 : right : 12], pixels)


def test_what_the_config_leaves_out_is_told(raycls_command: Callable[..., Result], project: Path) -> None:
    (project / "c.yaml").write_text(f"{_CONFIG}model: {{name: tiny_cnn, args: {{width: 64}}}}\n")
    result = raycls_command("augment", "c.yaml", "model.name=resnet18_cifar")
    (note,) = load(project / "c.yaml", ["model.name=resnet18_cifar"]).notes
    assert (result.code, result.err) == (0, f"{note}\n")
    assert "of tiny_cnn left out" in note


_MIXED = "augment.batch=[{mixup: {alpha: 1.0}}, {random_erasing: {p: 1.0, scale: [0.1, 0.2]}}]"


@pytest.mark.parametrize("task", [Classification, MultiLabel])
def test_the_batch_is_what_the_loss_of_the_training_is_given(
    task: type[Classification], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    words = ["train.micro_batches=2", "run.seed=3", _MIXED, "train.duration=1ep", "augment.off_after=off", *_TINY]
    run = load(project / "c.yaml", [*words, *(_tags(project) if task is MultiLabel else ())]).run
    given: list[Labelled] = []
    loss = task.loss

    def noted(self: Any, model: Any, batch: Labelled) -> Any:
        given.append(Labelled(batch.images.clone(), batch.labels.clone(), batch.weights))
        return loss(self, model, batch)

    monkeypatch.setattr(task, "loss", noted)
    train(job_of(run))
    dataset = open_dataset(run.data)
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in run.augment.normalisation(3))
    for number in range(6):  # 10 images in 3 steps of 2 micro-batches; what a run tries before it starts comes first
        images, labels, weights = given[len(given) - 6 + number]
        assert weights is None  # there is no data.weight
        images, labels = images.numpy(), labels.numpy()
        found = mixed(run, dataset, epoch=0, number=number)
        assert found is not None
        levels = ((images * std + mean) * 255).clip(0, 255)
        assert np.abs(found.after.transpose(0, 3, 1, 2) - levels).max() < 0.501  # rounded, and nothing else
        np.testing.assert_array_equal(found.shares, labels)
        assert found.ids == tuple(plan_of(run, dataset).order.micro(*divmod(number, 2)).tolist())
        assert len(found.ids) == (1 if number > 3 else 2)
        assert (found.after != found.before).any()


def _tags(project: Path) -> list[str]:
    """Images of any number of classes, and the overrides for them."""
    lines: list[str] = []
    for index in range(10):
        Image.fromarray(np.full((12, 12, 3), 20 * index, np.uint8)).save(project / f"{index}.png")
        lines.append(json.dumps({"path": f"{index}.png", "label": [["a", "b"], ["a"], ["b"], []][index % 4]}))
    (project / "m.jsonl").write_text("\n".join(lines))
    source = ["data.source={name: manifest, path: m.jsonl}", "data.split={train: 1.0, val: 0.0, test: 0.0}"]
    return ["task.name=multilabel", "evaluate.metric=map", "evaluate.every=off", *source]


def test_mixed_pixels_and_labels_by_hand(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, dataset = _opened(project, monkeypatch)
    run = load(project / "c.yaml", ["augment.batch=[{mixup: {alpha: 1.0}}]", "train.micro_batches=1"]).run
    found = mixed(run, dataset, epoch=1, number=0)
    assert found is not None and len(found.ids) == 4
    split = dataset.splits["train"]
    maker = make_maker(run, plan_of(run, dataset), dataset, 1, "val")
    np.testing.assert_array_equal(found.before, maker(Position(TRAIN, 1, 3, 0, 0)).arrays["image"])
    classes = [int(split.labels[index]) for index in found.ids]
    ratio = next(float(found.shares[row, classes[row]]) for row in range(4) if classes[row] != classes[row - 1])
    for row in range(4):
        blend = ratio * found.before[row].astype(float) + (1 - ratio) * found.before[row - 1]
        assert np.abs(found.after[row] - blend).max() <= 0.51
        expected = np.zeros(4)
        expected[classes[row]] += ratio
        expected[classes[row - 1]] += 1 - ratio
        assert found.shares[row].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_second_sheet_has_the_batch_and_its_labels(raycls_command: Callable[..., Result], project: Path) -> None:
    result = raycls_command("augment", "c.yaml", _MIXED, "train.micro_batches=1", "--micro-batch=1", "--count=3")
    operations = "mixup alpha: 1.0, random_erasing p: 1.0, scale: [0.1, 0.2]"
    assert (result.code, result.out.splitlines()[1]) == (
        0,
        f"wrote augment_batch.png: 3 of 4 images of micro-batch 0 of step 2, before and after {operations}",
    )
    run = load(project / "c.yaml", [_MIXED, "train.micro_batches=1"]).run
    dataset = open_dataset(run.data)
    found = mixed(run, dataset, epoch=0, number=1)
    assert found is not None
    sheet = Image.open(project / "augment_batch.png")
    captions = [
        ", ".join(f"{dataset.classes[index]}: {share:.3f}" for share, index in _largest(shares)) + f" (sample {id_})"
        for shares, id_ in zip(found.shares, found.ids, strict=True)
    ]
    heads = ["before augment.batch", f"as the model gets it: {operations}"]
    rows = [
        Row(caption, [(before, "12 x 12"), (after, "12 x 12")])
        for caption, before, after in zip(captions, found.before, found.after, strict=True)
    ][:3]
    np.testing.assert_array_equal(np.asarray(sheet), np.asarray(draw("c: step 2, micro-batch 0", heads, rows).image))


def _largest(shares: np.ndarray) -> list[tuple[float, int]]:
    return sorted(((float(share), index) for index, share in enumerate(shares) if share), key=lambda each: -each[0])


def test_an_epoch_that_is_not_mixed_has_one_sheet(raycls_command: Callable[..., Result], project: Path) -> None:
    result = raycls_command("augment", "c.yaml", _MIXED, "--epoch=2")
    assert (result.code, len(result.out.splitlines())) == (0, 1)
    assert "does nothing in epoch 2" in result.err
    assert [file.name for file in project.glob("*.png")] == ["augment.png"]


def test_one_channel_is_drawn_as_grey(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _opened(project, monkeypatch)[1]
    found = mixed(load(project / "c.yaml", [_MIXED, "model.in_channels=1"]).run, dataset, epoch=0, number=0)
    assert found is not None and found.after.shape == (4, 12, 12, 3)
    assert (found.after == found.after[..., :1]).all() and found.after.std() > 0


def test_a_task_whose_batches_show_nothing_is_told(raycls_command: Callable[..., Result], project: Path) -> None:
    (project / "own.py").write_text(
        "from raycls.tasks.classification import Classification\n"
        "class Own(Classification):\n    def shown(self, batch):\n        return None\n"
    )
    result = raycls_command("augment", "c.yaml", _MIXED, "task.name=own:Own")
    assert (result.code, result.out, list(project.glob("*.png"))) == (2, "", [])
    assert "own:Own cannot be drawn" in result.err


def test_headings_and_captions_are_written() -> None:
    picture = np.zeros((200, 100, 3), np.uint8)
    bare, told = (draw("", [text], [Row(text, [(picture, text)])]) for text in ("", "equalize"))
    (left, top, right, bottom), ink = told.boxes[0][0], np.asarray(told.image) != 255
    assert (right - left, bottom - top) == (72, 144)  # the longest side of a large image is 144
    assert ink[:top, left:].any() and ink[top:, :left].any() and ink[bottom:, left:].any()
    blank = np.asarray(bare.image) != 255
    assert blank.sum() == 72 * 144 * 3


@pytest.mark.parametrize(
    ("words", "code", "fragment"),
    [
        (("--epoch=3",), 2, "0 to 2"),
        (("--out=seen.jpg",), 2, "ends in .png"),
        (("--out=nowhere/seen.png",), 2, "there is no folder nowhere"),
        ((_MIXED, "train.micro_batches=2", "--micro-batch=6"), 2, "0 to 5"),
        ((_MIXED, "task.name=simclr", "evaluate.metric=top1"), 2, "augment.batch"),
        (("augment.train=[equalise]",), 2, "did you mean equalize?"),
        (("augment.train=[{random_crop: {size: 90}}]",), 3, "data.npz"),
        (("data.source.path=no.npz",), 3, "no.npz"),
    ],
)
def test_errors(raycls_command: Callable[..., Result], project: Path, words: tuple[str, ...], code: int, fragment: str) -> None:  # fmt: skip # noqa: E501
    result = raycls_command("augment", "c.yaml", *words)
    assert (result.code, result.out) == (code, "")
    assert fragment in result.err and "Traceback" not in result.err
    assert not list(project.glob("*.png"))
