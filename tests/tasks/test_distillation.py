"""Distillation: the loss by hand, which teacher is asked, and how images come to it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness.jobs import curve, evaluate_rank, make_job, train, weights, write_arrays
from harness.tasks import setting
from safetensors.torch import load_file
from torch import Tensor, nn

from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError, ModelError
from raycls.models import zoo
from raycls.models.surgery import find_head
from raycls.models.teaching import teacher
from raycls.models.teaching.teacher import Images, open_teacher
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model
from raycls.tasks.classification import Labelled
from raycls.tasks.distillation import Distillation, similarity

_CONFIG = ModelConfig(name="tiny_cnn", args={"width": 4})
_HALF = {"image_size": 8, "eval": [], "mean": [0.5] * 3, "std": [0.5] * 3}


def _run(folder: Path, classes: Sequence[str], seed: int = 0, **preprocessing: Any) -> nn.Module:
    """A run folder with a network of random weights; the network."""
    network = zoo.build(_CONFIG, len(classes), seed).eval()
    info = {"config": _CONFIG.model_dump(mode="json"), "weights": {"name": "best", "step": 3}}
    write_model(
        RunFolder(folder), network.state_dict(), classes=classes, preprocessing={**_HALF, **preprocessing}, **info
    )
    return network


def _task(teacher: Path, **args: Any) -> Distillation:
    return Distillation(setting(classes=("a", "b", "c"), mean=[0.5] * 3, std=[0.5] * 3), teacher=str(teacher), **args)


def _images(rows: int = 5) -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).randn(rows, 3, 8, 8)).float()


class _Says(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (4.0, 0.9), (2.5, 0.25)])
def test_loss_by_hand(temperature: float, weight: float, tmp_path: Path) -> None:
    network, images, labels = _run(tmp_path, ("a", "b", "c")), _images(), torch.tensor([0, 2, 1, 1, 0])
    own = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.25], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    task, student = _task(tmp_path, temperature=temperature, weight=weight), _Says(own)
    sums = task.loss(student, Labelled(images, labels))
    with torch.no_grad():
        theirs = (network(images).double() / temperature).softmax(1).numpy()
    ours = (own.double() / temperature).softmax(1).numpy()
    divergence = float((theirs * (np.log(theirs) - np.log(ours))).sum())
    assert sums["teacher_loss"].item() == pytest.approx(weight * temperature**2 * divergence, rel=1e-5)
    entropy = F.cross_entropy(own, labels, reduction="sum").item()
    assert sums["label_loss"].item() == pytest.approx((1 - weight) * entropy, rel=1e-6, abs=1e-9)
    assert sums["top1"].item() == int((own.argmax(1) == labels).sum())
    sums["teacher_loss"].backward()  # the gradient of cross entropy with soft targets: weight T (ours - theirs)
    assert student.logits.grad is not None
    np.testing.assert_allclose(student.logits.grad.numpy(), weight * temperature * (ours - theirs), atol=1e-6)


@pytest.mark.parametrize("known", [("a", "b", "c"), ("c", "x", "a", "b")])
def test_feature_loss_by_hand(known: tuple[str, ...], tmp_path: Path) -> None:
    """Against the products of the features written out; and nothing else changes."""
    network, images, labels = _run(tmp_path, known), _images(), torch.tensor([0, 2, 1, 1, 0])
    student = zoo.build(ModelConfig(name="tiny_cnn", args={"width": 6}), 3, 5).train()
    state = {name: value.clone() for name, value in student.state_dict().items()}
    alike = list[np.ndarray]()
    for each, mode in ((student, True), (network, False)):
        each.train(mode)
        seen = list[Tensor]()
        hook = each.get_submodule(
            find_head(each, 3 if each is student else len(known)) or ""
        ).register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0].detach().double()))
        with torch.no_grad():
            each(images)
        hook.remove()
        products = np.array([[float(one @ other) for other in seen[0]] for one in seen[0]])
        alike.append(products / np.sqrt((products**2).sum(axis=1, keepdims=True)))
    expected = ((alike[0] - alike[1]) ** 2).sum() / 5
    student.load_state_dict(state)
    without = _task(tmp_path).loss(student, Labelled(images, labels))
    student.load_state_dict(state)
    task = _task(tmp_path, features=3.0)
    sums = task.loss(student, Labelled(images, labels))
    assert sums["feature_loss"].item() == pytest.approx(3 * expected, rel=1e-4)
    assert "feature_loss" not in without
    assert all(torch.equal(without[name], sums[name]) for name in without)
    assert set(task.minimised) == {"label_loss", "teacher_loss", "feature_loss"}
    sums["feature_loss"].backward()
    assert (
        sum(float(parameter.grad.abs().sum()) for parameter in student.parameters() if parameter.grad is not None) > 0
    )


def test_networks_that_agree_have_no_feature_loss() -> None:
    features = torch.from_numpy(np.random.RandomState(3).randn(6, 9)).float()
    assert similarity(features, 2.5 * features).item() == pytest.approx(0, abs=1e-9)
    turned = features @ torch.linalg.qr(torch.from_numpy(np.random.RandomState(4).randn(9, 9)).float()).Q
    assert similarity(features, turned).item() == pytest.approx(0, abs=1e-9)
    assert similarity(features, features.flip(0)).item() > 0.01


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "map"), ("simclr", "loss")])
def test_a_teacher_that_gives_no_one_class(task: str, metric: str, tmp_path: Path) -> None:
    _run(tmp_path, ("a", "b", "c"))
    text = f"data: {{source: {{name: digits}}}}\ntask: {{name: {task}}}\nevaluate: {{metric: {metric}}}\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ModelError) as caught:
        _ = _task(tmp_path)._teacher
    assert caught.value.where == "task.args.teacher"
    assert task in (caught.value.found or "")


def test_a_student_without_a_head(tmp_path: Path) -> None:
    _run(tmp_path, ("a", "b", "c"))
    with pytest.raises(ModelError) as caught:
        _task(tmp_path, features=1.0).loss(_Says(torch.zeros(5, 3)), Labelled(_images(), torch.zeros(5).long()))
    assert caught.value.where == "task.args.features"


def test_a_teacher_with_its_classes_in_another_order_and_one_more(tmp_path: Path) -> None:
    network, images = _run(tmp_path, ("c", "x", "a", "b")), _images()
    teacher = open_teacher(
        str(tmp_path), ("a", "b", "c"), Images([0.5] * 3, [0.5] * 3), torch.device("cpu"), torch.channels_last
    )
    with torch.no_grad():
        expected = network(images)[:, [2, 3, 0]]
    torch.testing.assert_close(teacher.logits(images, Images([0.5] * 3, [0.5] * 3)), expected)
    assert "1 of its classes" in teacher.notes[0]
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_images_come_to_the_teacher_as_its_own_did(tmp_path: Path) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.3, 0.2]
    crop = [{"resize": {"size": 14}}, {"center_crop": {"size": 12}}]
    network = _run(tmp_path, ("a", "b", "c"), mean=mean, std=std, eval=crop)
    pixels = torch.from_numpy(np.random.RandomState(1).rand(4, 3, 8, 8)).float()
    shape = (1, 3, 1, 1)
    with torch.no_grad():
        seen = (pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
        expected = network(F.interpolate(seen, (12, 12), mode="bilinear", antialias=True))
    task = _task(tmp_path)
    given = (pixels - 0.5) / 0.5
    torch.testing.assert_close(task._teacher.logits(given, task._images), expected, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_no_part_of_what_is_trained_and_not_needed_afterwards(tmp_path: Path) -> None:
    _run(tmp_path / "teacher", ("0", "1", "2", "3"))
    data = write_arrays(tmp_path / "data.npz", train=16, val=4)
    overrides = ("task.name=distillation", f"task.args.teacher={tmp_path / 'teacher'}", "train.duration=1st")
    job = make_job(tmp_path / "run", data, *overrides)
    train(job)
    held = zoo.build(ModelConfig(name="tiny_cnn", args={"width": 8}), 4, 0).state_dict().keys()
    assert load_file(tmp_path / "run/model/model.safetensors").keys() == held
    (line,) = [record for record in curve(tmp_path / "run") if record["kind"] == "train"]
    assert line["loss"] == pytest.approx(line["label_loss"] + line["teacher_loss"])
    shutil.rmtree(tmp_path / "teacher")
    assert evaluate_rank(0, 1, replace(job, split="val"))["count"] == 4


def test_another_teacher_is_refused_when_the_run_is_resumed(tmp_path: Path) -> None:
    teacher, data = tmp_path / "teacher", write_arrays(tmp_path / "data.npz", train=16, val=4)
    _run(teacher, ("0", "1", "2", "3"))
    overrides = ("task.name=distillation", f"task.args.teacher={teacher}")
    job = make_job(tmp_path / "run", data, *overrides, "train.duration=2st")
    first = RunFolder(teacher).read_json(RunFolder.MODEL_INFO)["sha256"]
    facts = RunFolder(tmp_path / "run").read_json(RunFolder.ENV)["outside"]["teacher"]
    assert facts == {"run": str(teacher), "weights": "best", "sha256": first}
    train(job)
    before = weights(tmp_path / "run")
    _run(teacher, ("0", "1", "2", "3"), seed=1)
    for start in (lambda: make_job(tmp_path / "run", data, *overrides, "train.duration=4st"), lambda: train(job)):
        with pytest.raises(ConfigError, match="started with another teacher") as caught:
            start()
        assert first[:16] in (caught.value.found or "")
    assert weights(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("teacher", "message", "found"),
    [
        ("nowhere", "the teacher is not there", "nowhere"),
        ("other", "does not know every class", "without 3"),
        ("spoilt", "the teacher is no classifier", "features"),
        ({"name": "tiny_cnn"}, "it would teach noise", ""),
        ({"nam": "tiny_cnn"}, "the teacher is no model section", "Extra"),
        ({"name": "tiny_cnn", "args": {"width": 4}, "weights": "other/model/model.safetensors"}, "start anew", ""),
    ],
)
def test_a_teacher_that_cannot_teach(
    teacher: Any, message: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(tmp_path / "other", ("0", "1", "2", "4"))
    network = _run(tmp_path / "spoilt", ("0", "1", "2", "3"))
    info = RunFolder(tmp_path / "spoilt").read_json(RunFolder.MODEL_INFO)
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    del info["format"], info["sha256"]
    write_model(RunFolder(tmp_path / "spoilt"), tensors, **info)
    device, layout = torch.device("cpu"), torch.channels_last
    with pytest.raises(ModelError, match=message) as caught:
        open_teacher(teacher, ("0", "1", "2", "3"), Images([0.5] * 3, [0.5] * 3), device, layout)
    assert found in (caught.value.found or "")
    assert (caught.value.where or "").startswith("task.args.teacher")


def test_a_file_of_weights_as_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network, images = _run(tmp_path / "other", ("b", "c", "a")), _images()
    given = {"name": "tiny_cnn", "args": {"width": 4}, "weights": "other/model/model.safetensors"}
    student = Images([0.2] * 3, [0.1] * 3)
    teacher = open_teacher(given, ("a", "b", "c"), student, torch.device("cpu"), torch.channels_last)
    assert (teacher.images.mean, teacher.images.std) == ((0.5,) * 3, (0.5,) * 3)  # those beside the file
    with torch.no_grad():
        torch.testing.assert_close(teacher.logits(images, teacher.images), network(images)[:, [2, 0, 1]])
    assert len(teacher.facts["sha256"]) == 64


def test_a_teacher_of_other_channels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _run(tmp_path / "other", ("a", "b"))
    with pytest.raises(ModelError, match="another number of channels") as caught:
        open_teacher("other", ("a", "b"), Images([0.5], [0.5]), torch.device("cpu"), torch.channels_last)
    assert caught.value.found == "model.in_channels 3 of the teacher, 1 here"


@pytest.mark.parametrize(
    ("operations", "size"),
    [
        (None, (32, 32)),
        ((), None),
        (("center_crop",), (32, 32)),
        (({"center_crop": {"size": 24}}, "horizontal_flip"), (24, 24)),
        (({"resize": {"size": 24}},), None),
        (({"resize": {"size": [24]}},), None),
        (({"resize": {"size": None}},), None),
        (({"resize": {"size": [24, 40]}},), (24, 40)),
        (({"resize": {"size": 24, "fit": "stretch"}},), (24, 24)),
        (({"resize": {"fit": "pad"}},), (32, 32)),
        (({"resize": {"size": [24, 40], "fit": "crop"}}, "horizontal_flip"), (24, 40)),
    ],
)
def test_the_size_that_a_teacher_was_evaluated_at(operations: Any, size: tuple[int, int] | None) -> None:
    assert teacher._size(operations, 32) == size
