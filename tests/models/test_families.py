"""Every family of torchvision's classification models: one forward, one step of training, and one resume."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from harness.jobs import curve, make_job, train, train_rank_stopped, weights, write_arrays

from raycls.config.sections.model import ModelConfig
from raycls.errors import ModelError
from raycls.models.zoo import build, probe
from raycls.run.folder import RunFolder

SMALLEST = {
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 29,
    "efficientnet_b0": 1,
    "googlenet": 15,
    "inception_v3": 75,
    "maxvit_t": 221,  # windows of 7 over 1/32, rounded up: another number of them only with the argument input_size
    "mnasnet0_5": 1,
    "mobilenet_v2": 1,
    "mobilenet_v3_small": 1,
    "regnet_x_400mf": 1,
    "resnet18": 1,
    "shufflenet_v2_x0_5": 1,
    "squeezenet1_1": 17,
    "swin_t": 4,
    "vgg11": 32,
    "vit_b_32": 32,
}
"""The fewest pixels a side that one of each family takes."""
_PIXELS = 8
"""The fewest that are trained here: of fewer, a crop has nothing to choose."""


def _args(name: str, size: int) -> dict[str, object]:
    return {"image_size": size} if name == "vit_b_32" else {}


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
def test_one_forward_at_the_smallest_size_and_none_below(name: str, size: int) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        model = build(ModelConfig(name=name, args=_args(name, size)), 4, seed=0)
        probe(model, (torch.zeros(1, 3, size, size),), (2, 4))
        if size > 1:
            with pytest.raises(ModelError):
                small = build(ModelConfig(name=name, args=_args(name, size - 1)), 4, seed=0)
                probe(small, (torch.zeros(1, 3, size - 1, size - 1),), (2, 4))


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SMALLEST)
def test_one_step_and_one_resume(name: str, tmp_path: Path) -> None:
    size = max(SMALLEST[name], _PIXELS)
    data = write_arrays(tmp_path / "data.npz", train=16, val=4, size=size)
    overrides = [
        f"model.name={name}",
        *(f"model.args.{key}={value}" for key, value in _args(name, size).items()),
        f"data.image_size={size}",
        "augment.train=[horizontal_flip]",
        "data.batch_size=8",
        "train.micro_batches=2",
        "train.duration=2st",
        "optim.lr=0.01",
        "track.log_every=1st",
        "checkpoint.every=1st",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(make_job(whole, data, *overrides))["step"] == 2
    stopped = train_rank_stopped(0, 1, make_job(cut, data, *overrides), 1, "sigterm")
    assert stopped["step"] == 1
    assert max(RunFolder(cut).steps()) == 1
    assert train(make_job(cut, data, *overrides))["step"] == 2
    assert weights(cut) == weights(whole)
    assert curve(cut) == curve(whole)
    losses = [record["loss"] for record in curve(whole) if record["kind"] == "train"]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
