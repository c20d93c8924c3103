"""The task: pixels to a summed loss, against plain torch and values worked out by hand."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raycls.data.order import key
from raycls.tasks.classification import Classification, MicroBatch, digests
from raycls.tasks.losses import cross_entropy

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _task(**options: Any) -> Classification:
    settings: dict[str, Any] = {
        "seed": 3,
        "mean": _MEAN,
        "std": _STD,
        "loss": cross_entropy(),
        "amp": None,
        "channels_last": True,
        "device": torch.device("cpu"),
    }
    return Classification(**{**settings, **options})


def _pixels(count: int = 5) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def test_pixels_are_normalised() -> None:
    images = _task().images(_pixels())
    expected = (_pixels().astype(np.float64) / 255 - _MEAN) / _STD
    assert images.shape == (5, 3, 4, 6)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.numpy(), expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-6)
    one = _task(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)).images(np.full((1, 1, 1, 3), 255, np.uint8))
    assert one.flatten().tolist() == pytest.approx([2.0, 1.0, 0.5], abs=1e-6)


@pytest.mark.parametrize("channels_last", [True, False])
def test_layout(channels_last: bool) -> None:
    images = _task(channels_last=channels_last).images(_pixels())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)
    assert torch.equal(images, _task(channels_last=not channels_last).images(_pixels()))


def test_pixels_are_not_written_to() -> None:
    pixels = _pixels()
    pixels.flags.writeable = False
    before = pixels.tobytes()
    _task().images(pixels)  # a warning of torch about memory that is read-only would be an error here
    assert pixels.tobytes() == before


def test_micro_batches_are_the_parts() -> None:
    pixels, labels = _pixels(), np.array([3, 1, 0, 2, 1])
    parts = list(_task().micro_batches(pixels, labels, [(4, 0, 2), (5, 2, 2), (6, 2, 5)]))
    assert [(part.index, len(part)) for part in parts] == [(4, 2), (5, 0), (6, 3)]
    assert [part.labels.tolist() for part in parts] == [[3, 1], [], [0, 2, 1]]
    assert torch.equal(torch.cat([parts[0].images, parts[2].images]), _task().images(pixels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_a_sum(smoothing: float) -> None:
    labels = torch.tensor([0, 2, 1])
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.25], [0.0, 3.0, 1.0]])
    batch = MicroBatch(0, torch.zeros(3, 3, 2, 2), labels)
    loss, correct = _task(loss=cross_entropy(label_smoothing=smoothing)).loss(_Returns(logits), batch)
    chances = logits.double().softmax(1).numpy()
    target = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    assert loss.item() == pytest.approx(float(-(target * np.log(chances)).sum()), rel=1e-6)
    assert correct.item() == 2  # the second row's highest logit is not its class


class _Returns(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.to(images.dtype)


@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_mixed_precision(amp: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
    task, labels = _task(amp=amp), torch.tensor([0, 1, 2, 3, 0])
    batch = MicroBatch(0, task.images(_pixels()), labels)
    inside: list[torch.dtype] = []
    model[1].register_forward_hook(lambda module, given, output: inside.append(output.dtype))
    loss, _ = task.loss(model, batch)
    assert inside == [amp]
    assert loss.dtype == torch.float32
    plain = F.cross_entropy(model(batch.images), labels, reduction="sum")
    assert loss.item() != plain.item()
    assert loss.item() == pytest.approx(plain.item(), rel=0.05)


def test_forward_seed_is_a_function_of_the_position() -> None:
    def drawn(seed: int, step: int, micro: int) -> float:
        torch.rand(7)
        _task(seed=seed).seed_forward(step, micro)
        return torch.rand(1).item()

    places = [(seed, step, micro) for seed in (0, 1) for step in range(3) for micro in range(3)]
    values = [drawn(*place) for place in places]
    assert values == [drawn(*place) for place in places]
    assert len(set(values)) == len(places)
    torch.manual_seed(key(1, 2, 0) >> 1)
    assert torch.rand(1).item() == drawn(1, 2, 0)


@pytest.mark.parametrize("draw", [np.random.random, random.random])
def test_forward_may_draw_from_numpy_and_python(draw: Callable[[], float]) -> None:
    def drawn(step: int, micro: int) -> float:
        draw()
        _task(seed=0).seed_forward(step, micro)
        return draw()

    places = [(step, micro) for step in range(3) for micro in range(3)]
    values = [drawn(*place) for place in places]
    assert values == [drawn(*place) for place in places]
    assert len(set(values)) == len(places)


def test_digests() -> None:
    pixels = _pixels(3)
    assert digests(pixels[1:]) == [hashlib.sha256(bytes(image.ravel().tolist())).hexdigest() for image in pixels[1:]]
    assert digests(pixels[:, ::2]) == digests(np.ascontiguousarray(pixels[:, ::2]))
