"""What is done to a network after it was built: find its head, initialise it, group its parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "Rate",
    "beside",
    "buffers_kept",
    "find_auxiliary_heads",
    "find_head",
    "initialise",
    "last_layer",
    "modes_kept",
    "parameter_groups",
    "restore",
]


@dataclass(frozen=True)
class Rate:
    """The part of the learning rate that a parameter has."""

    factor: float
    group: tuple[int, str]
    """Where it comes from: the layer, where that counts, and a pattern. Equal for what stands in one group."""


LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def find_head(model: nn.Module, num_classes: int) -> str | None:
    """Name of the layer that gives the logits, or None where no layer has `num_classes` outputs.

    It is the last linear or convolution layer, in the order in which they were registered, with
    `num_classes` outputs, and no auxiliary head where there is another. That holds for every torchvision classifier,
    SqueezeNet's convolution included.
    """
    found = _with_outputs(model, num_classes)
    main = [name for name in found if _auxiliary(name) is None]
    return (main or found or [None])[-1]


def find_auxiliary_heads(model: nn.Module, num_classes: int) -> list[str]:
    """Names of the layers that give further logits: the last with `num_classes` outputs of each module `aux...`."""
    last = {_auxiliary(name): name for name in _with_outputs(model, num_classes)}
    return [name for group, name in last.items() if group is not None]


def last_layer(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last linear or convolution layer that is no auxiliary head: the head of a classifier."""
    layers = [module for name, module in model.named_modules() if isinstance(module, LAYERS) and not _auxiliary(name)]
    return list(layers[-1].parameters(recurse=False)) if layers else []


def restore(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`model.load_state_dict` of all tensors that this network had.

    torch keeps versions of modules beside a state dict, which files of bare tensors do not have, and some networks
    (torchvision's MNASNet) refuse one without. They are the model's own here.
    """
    state = OrderedDict(tensors)
    state._metadata = getattr(model.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    model.load_state_dict(state)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Each module is back in the mode (training or evaluation) that it had, whatever the block set."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Each buffer holds what it held, such as batch-norm statistics, whatever forward passes the block runs."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def beside(model: nn.Module, example: tuple[Tensor, ...], rows: int = 1) -> tuple[Tensor, ...]:
    """`example` on the device of the network, `rows` times over."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    moved = tuple(part.to(device) for part in example)
    return moved if rows == 1 else tuple(torch.cat([part] * rows) for part in moved)


def _with_outputs(model: nn.Module, count: int) -> list[str]:
    return [
        name for name, module in model.named_modules() if isinstance(module, LAYERS) and module.weight.shape[0] == count
    ]


def _auxiliary(name: str) -> str | None:
    """The name up to a component that begins with `aux`, None where none does."""
    parts = name.split(".")
    number = next((number for number, part in enumerate(parts) if part.lower().startswith("aux")), None)
    return None if number is None else ".".join(parts[: number + 1])


def initialise(model: nn.Module, how: Literal["default", "xavier_uniform", "kaiming"]) -> None:
    """Start all convolution and linear layers of `model` in place, from torch's global generator.

    `default` leaves what the model's author chose. `xavier_uniform`: Glorot and Bengio 2010.
    `kaiming`: He et al. 2015, normal; fan-out for convolutions, as in torchvision's ResNets, and fan-in for
    linear layers, whose fan-out would be the number of classes. Both set biases to zero.
    """
    if how == "default":
        return
    for module in model.modules():
        if not isinstance(module, LAYERS):
            continue
        if how == "xavier_uniform":
            nn.init.xavier_uniform_(module.weight)
        else:
            mode = "fan_in" if isinstance(module, nn.Linear) else "fan_out"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    weight_decay_on: Literal["all", "weights"],
    rates: dict[str, Rate] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters as groups for a torch optimizer, each parameter once, in the model's order.

    `all` makes one group. `weights` makes two: parameters with two or more dimensions, and without decay
    those with fewer (biases, normalisation). A group without parameters is left out. `rates`, of each parameter by
    name, divide them further: by where a rate comes from and not by what it is, so that two runs that differ in the
    factors alone have the same groups. Each has its `lr_factor` then.
    """
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for decayed in (True, False):
        for name, parameter in named:
            if decayed is not (weight_decay_on == "all" or parameter.ndim > 1):
                continue
            rate = rates[name] if rates else None
            made: dict[str, Any] = {"params": [], "weight_decay": weight_decay if decayed else 0.0}
            key = (decayed, *(() if rate is None else rate.group))
            # the group of the last weight is the last one: an optimizer may take it for the head
            groups[key] = groups.pop(key, made if rate is None else {**made, "lr_factor": rate.factor})
            groups[key]["params"].append(parameter)
    return list(groups.values())
