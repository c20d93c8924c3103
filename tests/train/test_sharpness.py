"""Sharpness-aware minimisation against the same in a plain PyTorch loop, and what it leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raycls.data.order import Order
from raycls.data.slices import micro_rows
from raycls.train.optimizers.sharpness import SharpnessAware
from raycls.train.reduction import make_reduction

_RADIUS = 0.3


def _model(norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(54, 5))
    return net.to(memory_format=torch.channels_last)


def _samples() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(11)
    return torch.randn(12, 3, 5, 5), torch.randint(0, 5, (12,))


def _step(model: nn.Module, name: str, micro: int, poison: float = 1.0) -> tuple[SharpnessAware, list[float], int]:
    """What the loop does with one batch of twelve: the reduction, its totals, and how many micro-batches it ran."""
    images, labels = _samples()
    order = Order(0, 12, 12, micro)
    device, example = torch.device("cpu"), (images[:1],)
    inner = make_reduction(name, model, order, rank=0, world=1, device=device, sums=1, example=example)
    reduction, count = SharpnessAware(inner, model, _RADIUS), 0
    reduction.begin(0)
    for index, start, stop in reduction.passes(micro_rows(order, 0, 0, 1)):
        count += 1
        with reduction.micro_batch(index, stop - start):
            torch.manual_seed(index)
            loss = F.cross_entropy(reduction.model(images[start:stop]), labels[start:stop], reduction="sum") * poison
            (loss * (reduction.factor / 12)).backward()
        reduction.add(index, [loss])
    return reduction, reduction.finish().tolist(), count


def _plain(model: nn.Module, micro: int) -> tuple[list[torch.Tensor], float]:
    """Foret et al. 2021, algorithm 1, as one reads it in a tutorial: the gradient, and the loss at the weights."""
    images, labels = _samples()

    def gradient() -> tuple[list[torch.Tensor], float]:
        model.zero_grad()
        total = 0.0
        for index, part in enumerate(torch.arange(12).chunk(micro)):
            torch.manual_seed(index)
            loss = F.cross_entropy(model(images[part]), labels[part], reduction="sum")
            (loss / 12).backward()
            total += loss.item()
        return [parameter.grad.clone() for parameter in model.parameters()], total

    first, total = gradient()
    length = torch.sqrt(sum((value**2).sum() for value in first))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), first, strict=True):
            parameter += _RADIUS * value / length
    return gradient()[0], total


@pytest.mark.parametrize(("name", "micro"), [("exact", 1), ("exact", 3), ("fast", 3)])
def test_the_gradient_is_that_of_a_plain_loop(name: str, micro: int) -> None:
    model = _model(nn.GroupNorm(2, 6))
    before = copy.deepcopy(model.state_dict())
    expected, loss = _plain(copy.deepcopy(model), micro)
    _, totals, count = _step(model, name, micro)
    assert (totals, count) == ([pytest.approx(loss, rel=1e-6)], 2 * micro)
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "micro"), [("exact", 1), ("exact", 3), ("fast", 1)])
def test_batch_norm_takes_its_statistics_from_the_weights_that_there_are(name: str, micro: int) -> None:
    images, _ = _samples()
    model = _model(nn.BatchNorm2d(6))
    parts = model[0](images).chunk(micro)
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    reduction, _, _ = _step(model, name, micro)
    torch.testing.assert_close(model[1].running_mean, 0.1 * mean)
    assert model[1].num_batches_tracked == 1
    reduction.keep_buffers(False)
    assert not model[1].running_mean.any() and model[1].num_batches_tracked == 0


class _Counting(nn.Module):
    """Adds what its buffer holds at the beginning of each forward pass, and counts up in it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.starts: list[float] = []

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.starts.append(float(self.seen))
        self.seen += 1
        return values


@pytest.mark.parametrize("name", ["exact", "fast"])
def test_the_second_pass_begins_with_the_buffers_of_the_first(name: str) -> None:
    model = _model(counting := _Counting())
    _step(model, name, 1)
    first, second = counting.starts[-2:]
    assert first == second == 0.0
    assert float(counting.seen) == 1.0


def test_no_second_pass_where_there_is_no_direction() -> None:
    for poison, norm in ((float("inf"), float("nan")), (0.0, 0.0)):
        model = _model(nn.BatchNorm2d(6))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        _, _, count = _step(model, "exact", 3, poison)
        assert count == 3
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
        found = float(torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()]))
        assert found == norm or (found != found and norm != norm)
