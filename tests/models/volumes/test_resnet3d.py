"""Networks for volumes: their sizes, and that each of them takes volumes of the channels that the config says."""

from __future__ import annotations

import re

import pytest
import torch
from harness.errors import raised

from raycls.config.names.networks import torchvision_models
from raycls.config.sections.model import ModelConfig
from raycls.errors import ModelError
from raycls.models import zoo
from raycls.models.volumes.resnet3d import resnet3d


def _parameters(depth: int, width: int = 64, classes: int = 2, stem: int = 7) -> int:
    """As Table 1 of He et al. 2016 has it, with 3 more for each k^2 of a convolution: counted without the network."""
    blocks, bottleneck = {10: ((1, 1, 1, 1), 0), 18: ((2, 2, 2, 2), 0), 34: ((3, 4, 6, 3), 0), 50: ((3, 4, 6, 3), 1)}[
        depth
    ]
    count, inside = stem**3 * 3 * width + 2 * width, width
    for stage, many in enumerate(blocks):
        wide = width * 2**stage
        out = 4 * wide if bottleneck else wide
        for place in range(many):
            if bottleneck:
                count += inside * wide + 27 * wide * wide + wide * out + 4 * wide + 2 * out
            else:
                count += 27 * inside * wide + 27 * wide * wide + 4 * wide
            if place == 0 and (stage > 0 or inside != out):
                count += inside * out + 2 * out
            inside = out
    return count + inside * classes + classes


@pytest.mark.parametrize("depth", [10, 18, 34, 50])
def test_depths_have_the_parameters_of_the_paper_in_three_dimensions(depth: int) -> None:
    with torch.device("meta"):
        model = resnet3d(2, depth=depth)  # type: ignore[arg-type]
        small = resnet3d(5, depth=depth, width=8, stem="3x3x3")  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in model.parameters()) == _parameters(depth)
    assert sum(parameter.numel() for parameter in small.parameters()) == _parameters(depth, 8, 5, 3)


def test_the_stem_decides_what_is_left_of_a_volume() -> None:
    sizes: dict[str, list[int]] = {}
    for stem in ("7x7x7", "3x3x3"):
        model = resnet3d(2, depth=10, width=2, stem=stem).eval()
        model.layer1.register_forward_hook(
            lambda module, inputs, output, stem=stem: sizes.update({stem: [*output.shape]})
        )
        assert model(torch.zeros(1, 3, 16, 24, 32)).shape == (1, 2)
    assert sizes == {"7x7x7": [1, 2, 4, 6, 8], "3x3x3": [1, 2, 16, 24, 32]}


@pytest.mark.parametrize("name", ["resnet3d", "r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t"])
def test_networks_take_volumes_of_one_channel(name: str) -> None:
    args = {"depth": 10, "width": 4} if name == "resnet3d" else {}
    model = zoo.build(ModelConfig(name=name, args=args, in_channels=1), 3, seed=0)
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 1, 8, 32, 32)).shape == (1, 3)


def test_names_and_arguments_are_known_without_torch() -> None:
    found = torchvision_models.find("r3d_18")
    assert found is not None and found.signature is not None
    assert [*found.signature.parameters] == ["num_classes", "zero_init_residual"]
    assert found.weights == ("KINETICS400_V1", "DEFAULT")
    assert {"r3d_18", "swin3d_t"} < set(torchvision_models.names())
    assert torchvision_models.find("mvit_v1_b") is None and torchvision_models.find("s3d") is None


def test_a_wrong_depth_is_refused() -> None:
    with raised(ModelError, where="model.args", found=re.compile("depth is one of 10, 18, 34, 50")):
        zoo.build(ModelConfig(name="resnet3d", args={"depth": 20}), 2, seed=0)
