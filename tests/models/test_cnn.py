"""Networks by their arguments, against those of torchvision and by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.errors import raised
from harness.jobs import make_job, train, write_arrays
from torch import nn
from torchvision.models import resnet50, vgg11

from raycls.config.sections.model import ModelConfig
from raycls.errors import ModelError
from raycls.models.layers import layers
from raycls.models.zoo import build


def made(**args: Any) -> nn.Module:
    return build(ModelConfig(name="cnn", args=args), 10, seed=0)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_default_is_resnet_18_for_small_images() -> None:
    other = build(ModelConfig(name="resnet18_cifar"), 10, seed=0)
    assert size(made()) == size(other)
    model = made().eval()
    # the same layers in the same order: with the same weights they say the same
    values = iter(other.state_dict().values())
    with torch.no_grad():
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(model(images), other.eval()(images))


def test_a_bottleneck_is_that_of_resnet_50() -> None:
    with torch.device("meta"):
        other = resnet50(num_classes=10)
    stem = 64 * 3 * (7 * 7 - 3 * 3)
    assert size(made(blocks=[3, 4, 6, 3], expansion=4)) == size(other) - stem


def test_without_residuals_it_has_the_convolutions_of_vgg() -> None:
    with torch.device("meta"):
        other = vgg11(num_classes=10)
    model = made(blocks=[1, 1, 2, 2, 2], widths=[64, 128, 256, 512, 512], batch_norm=False, residual=False)
    assert size(model) == size(other.features) + 512 * 10 + 10
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 10)  # smaller than five pools


@pytest.mark.parametrize(
    "args",
    [{"blocks": [1, 1], "widths": [8, 16]}, {"blocks": [1, 2], "widths": [8, 16], "kernel": 5, "residual": False}],
)
def test_small_ones_train_and_have_layers(args: dict[str, Any], tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=32, val=8)
    job = make_job(
        tmp_path / "run", data, "model.name=cnn", f"model.args={args}", "train.duration=1ep", "data.batch_size=16"
    )
    assert train(job)["step"] == 2
    blocks = sum(args["blocks"])
    assert len(layers(made(**args))) == blocks + 1 + args.get("residual", True)


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"blocks": [1, 1]}, "2 and 4"),
        ({"kernel": 2}, "odd"),
        ({"residual": False, "expansion": 2}, "residual: true"),
        ({"blocks": [0, 1, 1, 1]}, "1 or more"),
    ],
)
def test_arguments_that_do_not_fit(args: dict[str, Any], found: str) -> None:
    with raised(ModelError, where="model.args", found=re.compile(found)):
        made(**args)
