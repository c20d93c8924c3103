"""First weights in a run: what the header says of them, once, and that their head still knows its classes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.jobs import make_job, write_arrays
from harness.jobs import train as train_job
from harness.plugins import user_module
from PIL import Image
from torch import Tensor, nn

from raycls.config.load import load_text
from raycls.errors import ModelError
from raycls.launch import trainer
from raycls.models.networks.tiny import tiny_cnn
from raycls.screen.run import Display

_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
_NUMBERS = [str(number) for number in range(12)]
_NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(36, num_classes)
        self.pool = nn.AdaptiveAvgPool2d((3, 4))

    def forward(self, images):
        return self.fc(self.pool(images).flatten(1))
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with user_module(tmp_path, "twelve", _NET):
        yield


def _train(*overrides: str) -> tuple[list[str], float]:
    """The lines of a run of one step that changes nothing, and its accuracy."""
    config = """
    data: {batch_size: 8, image_size: 12, source: {name: arrays, path: a.npz}}
    augment: {train: [], eval: []}
    model: {name: "twelve:Net"}
    optim: {lr: 1.0e-12}
    train: {duration: 1st, amp: off}
    scale: {workers: 0}
    """
    screen = io.StringIO()
    with Display(screen) as display:
        outcome = trainer.train(load_text(config, "run.yaml", overrides).run, new=True, display=display)
    assert outcome.final is not None
    return screen.getvalue().splitlines(), outcome.final["top1"]


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    """120 images `[N, 12, 12, 3]` of 12 classes: where each is bright."""
    labels = np.arange(120) % 12
    pixels = np.random.default_rng(0).integers(0, 40, (120, 12, 12, 3)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[label // 4 * 4 : label // 4 * 4 + 4, label % 4 * 3 : label % 4 * 3 + 3] = 220
    np.savez("a.npz", images=pixels, labels=labels)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        Path(f"f/{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"f/{label}/{number}.png")
    return pixels, labels


def _trained(pixels: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """A head that plain PyTorch trained to an accuracy of 1."""
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - _MEAN) / _STD
    features, targets = nn.AdaptiveAvgPool2d((3, 4))(inputs).flatten(1), torch.from_numpy(labels)
    head = nn.Linear(36, 12)
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features), targets).backward()
        optimizer.step()
    assert (head(features).argmax(1) == targets).all()
    return {f"fc.{name}": value for name, value in head.state_dict().items()}


def _weights(lines: list[str]) -> list[str]:
    """What the header says of the weights; every line of it is there once."""
    header = lines[: next(number for number, line in enumerate(lines) if line.startswith("workers"))]
    start = next(number for number, line in enumerate(header) if line.startswith("weights"))
    told = [header[start], *(line for line in header[start + 1 :] if line.startswith(" "))]
    assert all(lines.count(line) == 1 for line in told)
    return [line[11:] for line in told]


@pytest.mark.parametrize("source", [("arrays", "a.npz"), ("folder", "f")])
def test_a_head_in_the_order_of_the_numbers_keeps_its_accuracy(
    source: tuple[str, str], images: tuple[np.ndarray, np.ndarray]
) -> None:
    torch.save(_trained(*images), "w.pth")
    lines, top1 = _train(f"data.source.name={source[0]}", f"data.source.path={source[1]}", "model.weights=w.pth")
    assert top1 == 1.0
    order = "its outputs are taken for the classes in this order: 0, 1, 2, 3 ... 11 (12)"
    assert _weights(lines) == ["w.pth", f"head taken as it is: {order}"]


@pytest.mark.parametrize("order", [sorted(_NUMBERS), _NUMBERS[::-1]], ids=["as texts", "backwards"])
def test_a_head_in_another_order_is_found_by_its_names(order: list[str], images: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, labels = images
    state = _trained(pixels, np.array([order.index(str(label)) for label in labels]))
    torch.save({"state_dict": state, "class_to_idx": {name: number for number, name in enumerate(order)}}, "w.pth")
    lines, top1 = _train("model.weights=w.pth")
    assert top1 == 1.0
    assert "12 of 12 classes are found by name" in _weights(lines)[1]


def test_a_model_of_raycls_is_matched_by_the_names_beside_it(images: tuple[np.ndarray, np.ndarray]) -> None:
    """The classes of the second run are those of the first under other numbers."""
    torch.save(_trained(*images), "w.pth")
    _train("model.weights=w.pth", "run.name=first")
    for label in range(12):
        Path(f"f/{label}").rename(f"f/{chr(ord('a') + label)}-class")
    path = Path("runs/first/model/model.json")
    info = json.loads(path.read_text())
    info["classes"] = [f"{chr(ord('a') + label)}-class" for label in range(12)]
    path.write_text(json.dumps(info))
    folder = ("data.source.name=folder", "data.source.path=f", "model.weights=runs/first/model/model.safetensors")
    lines, top1 = _train(*folder)
    assert top1 == 1.0
    assert "head: its 12 classes are those of the data, by name" in _weights(lines)
    assert _weights(lines)[0].startswith("runs/first/model/model.safetensors")
    for label in range(12):  # their names now sort backwards
        name = chr(ord("a") + label)
        Path(f"f/{name}-class").rename(f"f/{'zyxwvutsrqpo'[label]}-{name}")
    info["classes"] = [f"{'zyxwvutsrqpo'[label]}-{chr(ord('a') + label)}" for label in range(12)]
    path.write_text(json.dumps(info))
    lines, top1 = _train(*folder)
    assert top1 == 1.0
    assert "12 of 12 classes are found by name" in _weights(lines)[1]


@pytest.mark.parametrize(
    ("name", "prefix", "container", "told"),
    [
        ("bare.pth", "", "", "bare.pth"),
        ("lightning.ckpt", "model.", "state_dict", "lightning.ckpt, names under state_dict.model"),
        ("backbone.pth", "backbone.", "", "backbone.pth, names under backbone"),
    ],
)
def test_weights_without_a_head_are_trained(name: str, prefix: str, container: str, told: str) -> None:
    write_arrays(Path("a.npz"), train=16, val=4)
    state = {prefix + key: value for key, value in tiny_cnn(4).state_dict().items() if "classifier" not in key}
    content: Any = {container: state, "epoch": 3, "hyper_parameters": {"lr": 0.1}} if container else state
    torch.save(content, name)
    lines, _ = _train("model.name=tiny_cnn", f"model.weights={name}")
    assert _weights(lines) == [told, "its head (classifier) is not in the file and starts anew"]


def test_a_resumed_run_says_nothing_of_weights_that_it_does_not_read() -> None:
    write_arrays(Path("a.npz"), train=16, val=4)
    torch.save(tiny_cnn(4).state_dict(), "w.pth")
    settings = ("model.name=tiny_cnn", "model.weights=w.pth", "data.source.path=a.npz", "augment.eval=[]")
    job = make_job(Path("runs/run").absolute(), Path("a.npz"), *settings, "train.duration=1st")
    train_job(job)
    screen = io.StringIO()
    Path("w.pth").unlink()
    with Display(screen) as display:
        trainer.train(load_text(Path("runs/run/config.yaml").read_text(), "c.yaml").run, display=display)
    assert "weights " not in screen.getvalue()


@pytest.mark.parametrize("place", ["runs/run/model", "runs/run/checkpoints", "runs/run/checkpoints/step-1"])
def test_a_folder_of_a_run_is_refused_with_the_file_that_is_meant(place: str) -> None:
    write_arrays(Path("a.npz"), train=16, val=4)
    Path("runs/run/model").mkdir(parents=True)
    Path(place).mkdir(parents=True, exist_ok=True)
    Path("runs/run/model/model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        _train("run.name=other", f"model.weights={place}")
    assert caught.value.fix == "model.weights=runs/run/model/model.safetensors"
