"""Classification: pixels to a summed loss, counts to metrics, against torch, scikit-learn and figures by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness.tasks import classification, setting
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score
from torch import nn

from raycls.config.names.metrics import CLASSIFICATION
from raycls.config.sections.task import TaskConfig
from raycls.data.samples import Keys
from raycls.data.source import Split
from raycls.errors import ConfigError
from raycls.tasks.base import augmented
from raycls.tasks.build import build
from raycls.tasks.classification import Classification, Labelled, summarise
from raycls.train.precision import autocast

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _task(**options: Any) -> Classification:
    return classification(**{"mean": _MEAN, "std": _STD, "classes": tuple("abcd"), **options})


def _images(task: Classification, pixels: np.ndarray) -> torch.Tensor:
    return task.batch({"image": pixels, "label": np.zeros(len(pixels), np.int64)}, train=True).images


def _pixels(count: int = 5) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def test_pixels_are_normalised() -> None:
    images = _images(_task(), _pixels())
    expected = (_pixels().astype(np.float64) / 255 - _MEAN) / _STD
    assert images.shape == (5, 3, 4, 6)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.numpy(), expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-6)
    one = _images(_task(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)), np.full((1, 1, 1, 3), 255, np.uint8))
    assert one.flatten().tolist() == pytest.approx([2.0, 1.0, 0.5], abs=1e-6)


class _Pixels:
    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def read(self, index: int) -> np.ndarray:
        return self.pixels


def test_augmentation_ends_with_its_epoch() -> None:
    """Epoch 1 is trained with the turned image, 2 as it is evaluated; `batch` is told which."""
    pixels = _pixels(1)[0]
    split = Split("train", ("a",), np.zeros(1, np.int64), Keys(["0"]), _Pixels(pixels), ("png",), 10**6)
    task = _task(train=({"vertical_flip": {"p": 1.0}},), eval=(), off_epoch=2)
    for epoch, train, shown in (
        (0, True, pixels[::-1]),
        (1, True, pixels[::-1]),
        (2, True, pixels),
        (-1, False, pixels),
    ):
        made = task.arrays(split, 0, (0, epoch, 0), train=train)
        np.testing.assert_array_equal(made["image"], shown)
        assert ("augmented" in made) == train
        stacked = {name: array[None] for name, array in made.items()}
        assert augmented(stacked) == (epoch < 2)
        assert task.batch(stacked, train=train).images.shape == (1, 3, 4, 6)
    plain = _task(train=(), eval=()).arrays(split, 0, (0, 9, 0), train=True)
    assert list(plain) == ["image", "label"] and augmented(plain)


def test_images_grow_with_the_epochs() -> None:
    """Of 4 x 6 pixels; evaluations and the end without augmentation are as large as ever."""
    split = Split("train", ("a",), np.zeros(1, np.int64), Keys(["0"]), _Pixels(_pixels(1)[0]), ("png",), 10**6)
    task = _task(train=("center_crop",), eval=("center_crop",), off_epoch=5, sizes=((0, 2), (1, 3), (4, 7)))
    shapes = [task.arrays(split, 0, (0, epoch, 0), train=True)["image"].shape for epoch in range(6)]
    assert shapes == [(2, 2, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (7, 7, 3), (8, 8, 3)]
    assert task.arrays(split, 0, (0, -1, 0), train=False)["image"].shape == (8, 8, 3)


@pytest.mark.parametrize("channels_last", [True, False])
def test_layout(channels_last: bool) -> None:
    images = _images(_task(channels_last=channels_last), _pixels())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)
    assert torch.equal(images, _images(_task(channels_last=not channels_last), _pixels()))


def test_pixels_are_not_written_to() -> None:
    pixels = _pixels()
    pixels.flags.writeable = False
    before = pixels.tobytes()
    _images(_task(), pixels)  # a warning of torch about memory that is read-only would be an error here
    assert pixels.tobytes() == before


def test_a_batch_has_the_labels_of_its_images() -> None:
    labels = np.array([3, 1, 0, 2, 1])
    labels.flags.writeable = False
    batch = _task().batch({"image": _pixels()[1:3], "label": labels[1:3]}, train=True)
    assert batch.labels.tolist() == [1, 0]
    assert batch.labels.dtype == torch.int64
    assert torch.equal(batch.images, _images(_task(), _pixels())[1:3])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_a_sum(smoothing: float) -> None:
    labels = torch.tensor([0, 2, 1])
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.25], [0.0, 3.0, 1.0]])
    batch = Labelled(torch.zeros(3, 3, 2, 2), labels)
    sums = _task(label_smoothing=smoothing).loss(_Returns(logits), batch)
    chances = logits.double().softmax(1).numpy()
    target = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    assert sums["loss"].item() == pytest.approx(float(-(target * np.log(chances)).sum()), rel=1e-6)
    assert sums["top1"].item() == 2  # the second row's highest logit is not its class


class _Returns(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.to(images.dtype)


def test_bf16_logits_give_a_float32_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
    task, labels = _task(), torch.tensor([0, 1, 2, 3, 0])
    batch = Labelled(_images(task, _pixels()), labels)
    with autocast("bf16", torch.device("cpu")):
        loss = task.loss(model, batch)["loss"]
    assert loss.dtype == torch.float32
    plain = F.cross_entropy(model(batch.images), labels, reduction="sum")
    assert loss.item() != plain.item()
    assert loss.item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.parametrize("metric", CLASSIFICATION)
@pytest.mark.parametrize("classes", [2, 5, 6, 1000])
def test_a_metric_that_is_always_the_same_is_told(metric: str, classes: int) -> None:
    why = _task(classes=tuple(map(str, range(classes)))).constant(metric)
    assert bool(why) == (metric == "top5" and classes <= 5)
    assert f"top5 with {classes} classes" in why or not why


def test_an_example_has_the_shape_of_a_sample() -> None:
    (black,) = _task().example({"image": _pixels()[0], "label": np.array(3)})
    assert (list(black.shape), black.abs().sum().item()) == ([1, 3, 4, 6], 0.0)
    assert _task().outputs(7) == (7, 4)


def test_a_class_that_is_neither_there_nor_predicted_is_in_no_mean() -> None:
    # a and b without an error; no row of c, and none taken for one
    summary = summarise(np.diag([6, 6, 0]), 1.0, 12, ["a", "b", "c"])
    assert [summary[name]["macro"] for name in ("precision", "recall", "f1")] == [1.0, 1.0, 1.0]
    assert (summary["macro_classes"], summary["support"]) == (2, {"a": 6, "b": 6, "c": 0})
    assert summary["f1"]["per_class"] == {"a": 1.0, "b": 1.0, "c": 0.0}
    # one of b is taken for c: now c counts, with a precision and a recall of 0
    summary = summarise(np.array([[6, 0, 0], [0, 5, 1], [0, 0, 0]]), 1.0, 12, ["a", "b", "c"])
    assert summary["macro_classes"] == 3
    assert summary["f1"]["macro"] == pytest.approx((1 + 10 / 11 + 0) / 3)
    assert summary["f1"]["weighted"] == pytest.approx((6 * 1 + 6 * 10 / 11) / 12)


def test_two_classes_by_hand() -> None:
    # Class a: 3 rows, 2 found. Class b: 1 row, found; one a was taken for a b.
    summary = summarise(np.array([[2, 1], [0, 1]]), 3.0, 4, ["a", "b"])
    assert summary["count"] == 4
    assert summary["loss"] == 0.75
    assert summary["top1"] == 0.75
    assert summary["top5"] == 1.0
    assert summary["precision"]["per_class"] == {"a": 1.0, "b": 0.5}
    assert summary["precision"]["macro"] == 0.75
    assert summary["precision"]["weighted"] == pytest.approx((3 * 1.0 + 1 * 0.5) / 4)
    assert summary["recall"]["per_class"] == {"a": pytest.approx(2 / 3), "b": 1.0}
    assert summary["f1"]["per_class"] == {"a": pytest.approx(0.8), "b": pytest.approx(2 / 3)}
    assert summary["f1"]["macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert summary["confusion"] == [[2, 1], [0, 1]]


@pytest.mark.parametrize("num_classes", [2, 3, 7, 12])
@pytest.mark.parametrize("rows", [1, 5, 400])
def test_same_as_scikit_learn(num_classes: int, rows: int) -> None:
    # Few rows leave classes without a truth or without a prediction: all divisions by zero occur.
    generator = np.random.default_rng(num_classes * 1000 + rows)
    labels = np.arange(num_classes)
    truth, logits = generator.integers(0, num_classes, rows), generator.normal(size=(rows, num_classes))
    predicted = logits.argmax(axis=1)
    top = min(5, num_classes)
    hits = int((np.argsort(-logits, axis=1)[:, :top] == truth[:, None]).any(axis=1).sum())
    names = [f"class {label}" for label in labels]
    summary = summarise(confusion_matrix(truth, predicted, labels=labels), 1.5 * rows, hits, names)

    assert summary["count"] == rows
    assert summary["loss"] == pytest.approx(1.5)
    assert summary["top1"] == pytest.approx(accuracy_score(truth, predicted))
    if num_classes > 5:
        assert summary["top5"] == pytest.approx(top_k_accuracy_score(truth, logits, k=5, labels=labels))
    else:
        assert summary["top5"] == 1.0
    occurring = np.union1d(truth, predicted)
    assert summary["macro_classes"] == len(occurring)
    assert summary["support"] == dict(zip(names, np.bincount(truth, minlength=num_classes).tolist(), strict=True))
    for average in ("macro", "weighted", None):
        chosen = labels if average is None else None  # None: those that occur
        expected = precision_recall_fscore_support(truth, predicted, labels=chosen, average=average, zero_division=0)
        for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
            if average is None:
                assert summary[name]["per_class"] == pytest.approx(dict(zip(names, values, strict=True)))
            else:
                assert summary[name][average] == pytest.approx(values)


def test_it_is_plain_json_and_survives_it() -> None:
    summary = summarise(np.array([[2, 1], [0, 1]], dtype=np.int64), np.float64(3.0), 4, ["a", "b"])  # type: ignore[arg-type]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_no_rows_give_zeros_and_no_warning() -> None:
    summary = summarise(np.zeros((3, 3), dtype=np.int64), 0.0, 0, ["a", "b", "c"])
    assert set(_task().scalars(summary).values()) == {0}


def test_flat_has_the_scalars_only() -> None:
    scalars = _task().scalars(summarise(np.array([[2, 1], [0, 1]]), 3.0, 4, ["a", "b"]))
    assert set(scalars) == {
        "count", "loss", "top1", "top5",
        "precision_macro", "precision_weighted", "recall_macro", "recall_weighted", "f1_macro", "f1_weighted",
    }  # fmt: skip
    assert scalars["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert scalars["recall_weighted"] == pytest.approx(scalars["top1"])


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        summarise(np.zeros((2, 2), dtype=np.int64), 0.0, 0, ["a", "b", "c"])


def test_grey_values_are_those_of_pillow() -> None:
    """To the level, and normalised with the mean and deviation of the channels, weighted as Pillow weights them."""
    pixels = np.random.RandomState(1).randint(0, 256, (1, 300, 400, 3), dtype=np.uint8)
    pixels[0, 0, :5] = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    found = _images(_task(channels=1), pixels)
    level = np.asarray(Image.fromarray(pixels[0]).convert("L"))
    assert level[0, :5].tolist() == [0, 255, 76, 150, 29]
    # 0.299, 0.587 and 0.114 of ImageNet's: 0.145015 + 0.267672 + 0.046284, and 0.068471 + 0.131488 + 0.02565
    mean, std = 0.458971, 0.225609
    assert found.shape == (1, 1, 300, 400)
    np.testing.assert_allclose(found[0, 0].numpy(), (level / 255 - mean) / std, rtol=0, atol=3e-5)
    back = (found[0, 0].double() * 0.2256091 + 0.4589710) * 255
    assert np.array_equal(back.round().numpy(), level)


def test_other_channels_are_of_another_task() -> None:
    with pytest.raises(ConfigError, match="no images of so many channels") as refused:
        build(TaskConfig(), setting(channels=4))
    assert (refused.value.where, refused.value.found) == ("model.in_channels", "4")
    assert "a task of your own" in str(refused.value.valid)
    assert build(TaskConfig(), setting(channels=1)).example({"image": _pixels()[0]})[0].shape == (1, 1, 4, 6)
