"""`tiny_cnn`: its size, the images it takes, and that it learns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from raycls.models.networks.tiny import tiny_cnn


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_number_of_parameters_by_hand() -> None:
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    norms = 2 * (32 + 64 + 128 + 256)
    assert count(tiny_cnn(10, width=64)) == convolutions + norms + 256 * 10 + 10
    assert 380_000 < count(tiny_cnn(10, width=64)) < 420_000


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (16, 16), (32, 32), (64, 40)])
def test_any_size_from_8_trains_on_a_single_image(size: tuple[int, int]) -> None:
    model = tiny_cnn(7).train()
    logits = model(torch.randn(1, 3, *size))
    assert logits.shape == (1, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dropout_acts_in_training_only() -> None:
    images = torch.randn(4, 3, 8, 8)
    model = tiny_cnn(10, dropout=0.5).eval()
    assert torch.equal(model(images), model(images))
    # the features are the same, so a difference comes from the dropout
    model.dropout.train()
    assert not torch.equal(model(images), model(images))


def test_a_width_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        tiny_cnn(10, width=1)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_it_learns_digits() -> None:
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(8).sub(1)[:, None].expand(-1, 3, -1, -1)
    labels = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    model = tiny_cnn(10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(6):
        for rows in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    assert accuracy > 0.93  # the last 397 digits were written by other hands
