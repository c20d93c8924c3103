"""Activation checkpointing: the bits of a plain loop without it, and less memory by torch's own allocations."""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import DenseNet, ResNet, VisionTransformer, mobilenet_v3_small
from torchvision.models.resnet import BasicBlock

from raycls.errors import ModelError
from raycls.models.networks.cnn import cnn
from raycls.train.forward.recompute import check, choose, recomputed
from raycls.train.forward.saved import Part, memory_of, saved


def _vit(num_classes: int) -> nn.Module:
    return VisionTransformer(16, 4, 3, 2, 32, 64, dropout=0.1, attention_dropout=0.1, num_classes=num_classes)


class _Drops(nn.Module):
    """Stochastic depth (Huang et al. 2016) that skips a block, as Python's generator says, and noise of numpy's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, values: Tensor) -> Tensor:
        return values + self.block(values) * random.choice([0.5, 2.0])


def _plug_in(num_classes: int) -> nn.Module:
    norm = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))  # changes buffers that its forward pass reads
    rows = [layer for _ in range(3) for layer in (_Drops(8), nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True))]
    return nn.Sequential(norm, *rows, nn.Flatten(), nn.Linear(8 * 14 * 14, num_classes))


NETWORKS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "resnet": (lambda num_classes: ResNet(BasicBlock, [1, 1, 1, 1], num_classes), 32),
    "vit": (_vit, 16),
    "mobilenet_v3_small": (mobilenet_v3_small, 32),
    "densenet": (lambda num_classes: DenseNet(8, (2, 2, 1, 1), 8, num_classes=num_classes), 32),
    "cnn": (lambda num_classes: cnn(num_classes, [2, 2], [8, 16], dropout=0.2), 16),
    "cnn without residuals": (lambda num_classes: cnn(num_classes, [3, 3], [8, 16], residual=False, dropout=0.2), 16),
    "plug-in": (_plug_in, 16),
}


def _model(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    return make(num_classes=5).train(), (torch.zeros(1, 3, size, size),)


def _parts(model: nn.Module, example: tuple[Tensor, ...]) -> tuple[Part, ...]:
    return choose(model, saved(model, example, 2))


def _train(model: nn.Module, size: int, parts: tuple[Part, ...], precision: Any) -> tuple[dict[str, Tensor], float]:
    """Two steps of two micro-batches each, which begin with the same buffers; and what is drawn next."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, size, size), torch.randint(0, 5, (8,))
    with recomputed(model, parts) if parts else nullcontext():
        for _ in range(2):
            optimizer.zero_grad()
            for micro in (slice(0, 4), slice(4, 8)):
                with precision:
                    loss = nn.functional.cross_entropy(model(images[micro]).float(), labels[micro])
                loss.backward()
            optimizer.step()
    return model.state_dict(), torch.rand(1).item() + random.random()


@pytest.mark.parametrize(("name", "half"), [*((name, False) for name in NETWORKS), ("resnet", True), ("vit", True)])
def test_the_bits_are_those_of_a_loop_without_it(name: str, half: bool) -> None:
    model, example = _model(name)
    parts, plain = _parts(model, example), copy.deepcopy(model)
    assert parts
    precision, size = torch.autocast("cpu", torch.bfloat16, enabled=half), example[0].shape[-1]
    random.seed(0)
    wanted, drawn = _train(plain, size, (), precision)
    random.seed(0)
    found, then = _train(model, size, parts, precision)
    assert (drawn, set(wanted)) == (then, set(found))
    assert [key for key, value in wanted.items() if not torch.equal(value, found[key])] == []
    assert not any(value.isnan().any() for value in wanted.values())
    assert not any("forward" in vars(module) for module in model.modules())


class _Alive(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self._seen = 0, 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for each in tree_leaves(output):
            if isinstance(each, Tensor) and id(storage := each.untyped_storage()) not in self._seen:
                self._seen.add(id(storage))
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        return output

    def _gone(self, which: int, size: int) -> None:
        self._seen.discard(which)
        self.now -= size


def _most_alive(model: nn.Module, batch: Tensor, parts: tuple[Part, ...]) -> int:
    for parameter in model.parameters():  # gradients are there before, and no part of what is compared
        parameter.grad = torch.zeros_like(parameter)
    with recomputed(model, parts), _Alive() as alive:
        model(batch).sum().backward()
    return alive.most


@pytest.mark.parametrize("name", ["vit", "cnn", "cnn without residuals"])
def test_there_is_less_alive_at_once(name: str) -> None:
    model, example = _model(name)
    batch, parts = torch.cat([example[0]] * 16), _parts(model, example)
    two, three = saved(model, example, 2), saved(model, example, 3)
    said, without = (memory_of(two, three, each, 16).most for each in (parts, ()))
    assert said < without
    saving, expected = _most_alive(model, batch, ()) - _most_alive(model, batch, parts), without - said
    assert saving > 0.7 * expected


class _Counts(nn.Module):
    """What no forward pass should do: the second one is not the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.conv = 0, nn.Conv2d(3, 8, 3)

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return (self.conv(values) * self.calls).sigmoid().sigmoid()


class _Grows(_Counts):
    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(values).sigmoid().sigmoid() if self.calls % 2 else self.conv(values)[:, :, 1:].sigmoid().sin()


@pytest.mark.parametrize("kind", [_Counts, _Grows])
def test_a_part_that_is_another_one_when_it_runs_again_is_refused(kind: type[nn.Module]) -> None:
    model, example = (
        nn.Sequential(kind(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        torch.zeros(1, 3, 8, 8),
    )
    with pytest.raises(ModelError, match="computes something else when it runs again") as raised:
        check(model, (("0",),), (example,))
    assert raised.value.where == "train.activation_checkpointing, model.name"
    assert "parts that run again: 0" in str(raised.value.found)
    assert raised.value.fix == "set train.activation_checkpointing=off"


class _Overwrites(nn.Module):
    """The input of the block is changed in place once the block is done: it cannot run again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 4, 3, padding=1), nn.Sigmoid(), nn.Sigmoid())
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images)
        values += self.block(values)
        return self.head(values.mean((2, 3)))


def test_what_loses_its_input_does_not_run_again() -> None:
    torch.manual_seed(0)
    model, example = _Overwrites(), (torch.zeros(1, 3, 8, 8),)
    found = saved(model, example, 2)
    assert {"block", "block.0"} == found.overwritten
    parts = choose(model, found)
    assert not any({"block", "block.0"} & set(part) for part in parts)
    check(model, parts, example)


def test_without_gradients_nothing_is_kept_or_run_again() -> None:
    model, example = _model("cnn")
    calls = list[int]()
    model.get_submodule("stages.0").register_forward_hook(lambda *_: calls.append(1))
    with recomputed(model, (("stages.0",),)), torch.no_grad():
        assert torch.equal(model(*example), model(*example))
    assert len(calls) == 2
