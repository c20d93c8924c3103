"""What is done to a network after it was built: find its head, initialise it, group its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn

__all__ = ["find_auxiliary_heads", "find_head", "initialise", "modes_kept", "parameter_groups"]

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


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Each module is back in the mode (training or evaluation) that it had, whatever the block set."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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
    model: nn.Module, weight_decay: float, weight_decay_on: Literal["all", "weights"]
) -> list[dict[str, Any]]:
    """The trainable parameters as groups for a torch optimizer, each parameter once, in the model's order.

    `all` makes one group. `weights` makes two: parameters with two or more dimensions, and without decay
    those with fewer (biases, normalisation). A group without parameters is left out.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if weight_decay_on == "all":
        groups = [{"params": parameters, "weight_decay": weight_decay}]
    else:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]
