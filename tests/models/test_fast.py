"""`fast_cnn`: its size and its stages by hand, and that it learns."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.errors import raised
from harness.jobs import curve, make_job, train, write_arrays
from torch import nn

from raycls.config.sections.model import ModelConfig
from raycls.errors import ModelError
from raycls.models.layers import layers
from raycls.models.zoo import build


def made(**args: Any) -> nn.Module:
    return build(ModelConfig(name="fast_cnn", args=args), 10, seed=0)


def test_number_of_parameters_by_hand() -> None:
    convolutions = 9 * (3 * 4 + 4 * 6 + 6 * 6)
    norms = 2 * (4 + 6 + 6)
    model = made(widths=[4, 6], depths=[1, 2])
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + norms + 6 * 10
    assert len(layers(model)) == 3 + 1


def test_it_is_the_plain_network_written_out() -> None:
    """Pool before the norm in the first convolution of a stage, none in the second; max over positions; scaled."""
    model = made(widths=[4], depths=[2], scale=0.5).eval()
    first, second = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    images = torch.randn(3, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    values = nn.functional.conv2d(images, first.weight, padding=1)
    values = nn.functional.max_pool2d(values, 2, ceil_mode=True)
    assert values.shape == (3, 4, 5, 4)
    root = (1 + 1e-5) ** 0.5  # running variance 1 and mean 0: the norm of a network that has seen nothing
    values = torch.relu(values / root)
    values = torch.relu(nn.functional.conv2d(values, second.weight, padding=1) / root)
    head = next(module for module in model.modules() if isinstance(module, nn.Linear))
    expected = values.flatten(2).max(dim=2).values @ head.weight.T * 0.5
    torch.testing.assert_close(model(images), expected)


def test_a_convolution_starts_as_the_identity_of_what_it_can_pass_on() -> None:
    state = OrderedDict(made(widths=[4, 6], depths=[2, 2]).state_dict())
    first, second, third, fourth = (value for value in state.values() if value.ndim == 4)
    assert [tuple(value.shape[:2]) for value in (first, second, third, fourth)] == [(4, 3), (4, 4), (6, 4), (6, 6)]
    images = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nn.functional.conv2d(images, second, padding=1), images)
    torch.testing.assert_close(nn.functional.conv2d(images, third, padding=1)[:, :4], images)
    torch.testing.assert_close(nn.functional.conv2d(images[:, :3], first, padding=1)[:, :3], images[:, :3])
    assert not torch.equal(third[4:], torch.zeros_like(third[4:]))


def test_running_statistics_move_by_the_momentum() -> None:
    model = made(widths=[4], depths=[1], momentum=0.25).train()
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    seen = list[torch.Tensor]()
    norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(norm.running_mean, 0.25 * seen[0].mean(dim=(0, 2, 3)))


def test_it_learns(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=48, val=12)
    small = ("model.args={widths: [8, 16], depths: [1, 2]}", "train.duration=8ep", "data.batch_size=16", "optim.lr=0.3")
    assert train(make_job(tmp_path / "run", data, "model.name=fast_cnn", *small))["step"] == 24
    assert [line["top1"] for line in curve(tmp_path / "run") if line["kind"] == "evaluate"][-1] > 0.8  # of 4 classes


@pytest.mark.parametrize(
    ("args", "found"),
    [({"widths": [4, 6]}, "3 and 2"), ({"widths": [], "depths": []}, "0 and 0")],
)
def test_arguments_that_do_not_fit(args: dict[str, Any], found: str) -> None:
    with raised(ModelError, where="model.args", found=re.compile(found)):
        made(**args)
