"""`raycls model`: its numbers against those by hand and torch's counter, and what it says of small images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.command_line import Result
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from raycls.models.insight import Map, Window, insight
from raycls.train.forward.saved import memory_of, saved

Command = Callable[..., Result]
_NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.relu(self.conv(images)).mean((2, 3)))
"""
_BY_HAND = (
    "a network for small images, model.name=resnet18_cifar; or larger images, by a size in augment.train and "
    "augment.eval"
)


@pytest.fixture
def look(raycls_command: Command, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What `raycls model --json` finds of a config without data."""
    (tmp_path / "net.py").write_text(_NET)
    (tmp_path / "c.yaml").write_text(
        "data: {source: {name: folder, path: nowhere}, batch_size: 6, image_size: 8}\nmodel: {name: 'net:Net'}\n"
    )

    def call(*words: str) -> dict[str, Any]:
        result = raycls_command("model", "c.yaml", "--classes", "5", "--json", *words)
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    return call


def test_a_network_of_two_layers_by_hand(look: Callable[..., dict[str, Any]]) -> None:
    found = look("train.micro_batches=2")
    # 4 x 4 positions of 4 channels, each a sum over 27 values; 4 x 5 weights of the head
    conv = {"path": "conv", "kind": "Conv2d", "output": [4, 4, 4], "parameters": 112, "trained": 112, "macs": 1728}
    head = {"path": "head", "kind": "Linear", "output": [5], "parameters": 25, "trained": 25, "macs": 20}
    assert found["layers"] == [conv, head]
    assert (found["parameters"], found["macs"], found["flops"]) == (137, 1748, 3496)
    # floats: the image for the convolution, the map for the activation, the means for the head
    assert found["activation_bytes"] == {
        "image": 4 * (3 * 64 + 64 + 4),
        "batch": 3 * 4 * (3 * 64 + 64 + 4),
        "batch_images": 3,
    }
    assert found["stem"] == found["last_convolution"] == {"stride": 2, "field": 3, "height": 4, "width": 4}
    assert (found["problem"], found["fix"]) == ("", "")


@pytest.mark.parametrize(("workers", "images"), [("0", 6), ("2", 3), ("[1, 3]", 2)])
def test_a_micro_batch_is_that_of_the_run(look: Callable[..., dict[str, Any]], workers: str, images: int) -> None:
    assert look(f"scale.workers={workers}")["activation_bytes"]["batch_images"] == images


def test_tiny_cnn_by_hand(look: Callable[..., dict[str, Any]]) -> None:
    found = look("model.name=tiny_cnn", "model.args.width=4", "data.image_size=16")
    assert [part["output"] for part in found["layers"]] == [[2, 16, 16], [4, 8, 8], [8, 4, 4], [16, 3, 3], [5]]
    macs = [256 * 2 * 27, 64 * 4 * 18, 16 * 8 * 36, 9 * 16 * 72, 16 * 5]
    assert [part["macs"] for part in found["layers"]] == macs
    assert (found["macs"], found["flops"]) == (sum(macs), 2 * sum(macs))
    # each map for its norm and for its activation, the image, the means; per batch: mean and deviation of each norm
    image = 4 * (3 * 256 + 2 * (2 * 256 + 4 * 64 + 8 * 16 + 16 * 9) + 16)
    batch = 6 * image + 2 * 4 * (2 + 4 + 8 + 16)
    assert found["activation_bytes"] == {"image": image, "batch": batch, "batch_images": 6}
    assert found["last_convolution"] == {"stride": 8, "field": 17, "height": 3, "width": 3}


_CHAIN = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes):
        rows = [layer for _ in range(4) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())]
        super().__init__(nn.Sequential(*rows), nn.Flatten(), nn.Linear(3 * 64, num_classes))
"""


def test_what_runs_again_by_hand(look: Callable[..., dict[str, Any]], raycls_command: Command, tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(_CHAIN)
    found = look("model.name=chain:Net")
    one = 4 * 3 * 64  # bytes of a map: the image, what each convolution is given and each sigmoid returns
    assert found["activation_bytes"] == {"image": 5 * one, "batch": 6 * 5 * one, "batch_images": 6}
    # the inputs of two rows with two sigmoids each, and of the head: there are three maps with those that the first row
    # saves when it runs again, and four with those of the second one
    assert found["activation_checkpointing"] == {"parts": ["0.0 to 4", "0.5 to 7"], "batch": 6 * 4 * one}
    assert "checkpointed" in raycls_command("model", "c.yaml", "--classes", "5", "model.name=chain:Net").out


def test_what_is_frozen_is_not_trained_and_keeps_nothing(look: Callable[..., dict[str, Any]]) -> None:
    frozen = look("finetune.freeze=[conv]")
    assert (frozen["parameters"], frozen["trained_parameters"]) == (137, 25)
    assert [part["trained"] for part in frozen["layers"]] == [0, 25]
    assert frozen["activation_bytes"]["image"] == 4 * 4  # the head has the only gradient
    thawed = look("finetune.unfreeze={0ep: head, 3ep: conv}")
    assert thawed["trained_parameters"] == 137
    assert thawed["activation_bytes"] == look()["activation_bytes"]  # as at the end of the run


@pytest.mark.parametrize("size", [32, 224])
def test_resnet18_against_torch(size: int) -> None:
    model, example = resnet18(num_classes=10), torch.zeros(1, 3, size, size)
    found = insight(model, (example,))
    with FlopCounterMode(display=False) as counter:
        model.eval()(example)
    assert 2 * found.macs == counter.get_total_flops() == 2 * sum(part.macs for part in found.parts)
    assert sum(part.parameters for part in found.parts) == sum(value.numel() for value in model.parameters())
    assert found.stem == Map(4, 11, size // 4, size // 4)
    assert found.windows == (Window("convolution", 7, 2), Window("pooling", 3, 2))
    # receptive field of ResNet-18: 435 pixels (Araujo et al. 2019, table 1)
    assert found.last == Map(32, 435, size // 32, size // 32)


def test_what_is_behind_a_mean_is_no_map_and_branches_join() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 4, 5, dilation=2, padding=4), nn.Conv2d(4, 4, 1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.conv(images)
            maps = maps * self.gate(maps.mean((2, 3), keepdim=True))
            return self.head(torch.nn.functional.max_pool2d(maps, 2).mean((2, 3), keepdim=True)).flatten(1)

    found = insight(Gated(), (torch.zeros(1, 3, 12, 12),))
    assert found.last == found.stem == Map(1, 9, 12, 12)
    assert [part.macs for part in found.parts] == [144 * 4 * 75, 16, 8]


def test_nothing_of_the_network_changes() -> None:
    model = resnet18(num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    two, three = (saved(model.train(), (torch.zeros(1, 3, 32, 32),), count) for count in (2, 3))
    insight(model, (torch.zeros(1, 3, 32, 32),))
    assert 0 < 8 * (three.memory(()).kept - two.memory(()).kept) < memory_of(two, three, (), 8).kept
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_stem_that_leaves_too_little_is_pointed_out_with_what_helps(raycls_command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "data: {source: {name: folder, path: nowhere}, image_size: 32}\n"
        "model: {name: resnet18, args: {zero_init_residual: true}}\n"
    )
    words = ("model", "c.yaml", "--classes", "10")
    said = raycls_command(*words)
    assert said.code == 0
    assert "74,033,152 FLOPs per image = 2 x 37,016,576 MACs" in said.out
    assert (
        "note: the stem (7x7 convolution with stride 2, 3x3 pooling with stride 2) leaves 8x8 of 32x32 pixels; "
        "the last convolution leaves 1x1" in said.out
    )
    remedies = re.findall(r"[a-z_]+\.[a-z_]+=\w+", said.out.partition("fix: ")[2])
    assert remedies == ["model.name=resnet18_cifar", "data.image_size=224"]
    for remedy in remedies:
        better = raycls_command(*words, remedy)
        assert (better.code, "note:" in better.out) == (0, False), better.out + better.err


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("model.weights=IMAGENET1K_V1",), "larger images, data.image_size=224"),
        (("finetune.freeze=3",), "larger images, data.image_size=224"),
        (("augment.train=[{random_crop: {size: 32}}]",), _BY_HAND),
        (("augment.eval=[{center_crop: {size: 32}}]",), _BY_HAND),
    ],
)
def test_the_remedy_suits_the_config(words: tuple[str, ...], fix: str, look: Callable[..., dict[str, Any]]) -> None:
    assert look("model.name=resnet18", "data.image_size=32", *words)["fix"] == fix


def test_the_classes_are_those_of_the_data_where_none_are_given(raycls_command: Command) -> None:
    result = raycls_command("model", "recipe:digits", "--json")
    found = json.loads(result.out)
    assert (result.code, found["classes"], found["input"]) == (0, 10, [[3, 8, 8]])
    assert raycls_command("model", "recipe:digits", "data.source.name=folder", "data.source.path=no").code == 3
