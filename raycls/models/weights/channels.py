"""A network for images of another number of channels than three: its first convolution, with or without weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raycls.errors import ModelError

__all__ = ["adapted", "take", "widened"]

_RGB = 3


def take(model: nn.Module, channels: int, name: str) -> None:
    """Let the first convolution of `model` that takes 3 channels take `channels`, in place; 3 changes nothing.

    Its new weights are drawn from its own values, by torch's global generator, and scaled by sqrt(3 / channels): they
    have the distribution of the author's initialisation, and the outputs the variance that they had. The bias stays. A
    network whose first convolution takes `channels` already is left as it is.
    ModelError where there is no such convolution, or `model`, whose name is `name`, treats three channels by itself.
    """
    if channels == _RGB:
        return
    known = (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Conv3d))
    first = next((module for module in known if module.in_channels in (_RGB, channels)), None)
    if first is not None and first.in_channels == channels:
        return
    if getattr(model, "transform_input", False):
        raise ModelError(
            "the model normalises three channels by itself, as its published weights need it",
            where="model.in_channels",
            found=f"{channels}, and transform_input of {name}",
            valid="3, or model.args.transform_input: false",
        )
    if first is None or first.groups != 1 or "weight" not in first._parameters:
        raise ModelError(
            "the model has no convolution for images whose number of channels could be another",
            where="model.in_channels",
            found=f"{channels}, and {name}",
            valid="3, or a network with a Conv2d or Conv3d that takes 3 channels",
        )
    own = first.weight
    values, shape = own.detach().flatten(), (own.shape[0], channels, *own.shape[2:])
    drawn = values[torch.randint(len(values), shape)] * (_RGB / channels) ** 0.5
    first.weight = nn.Parameter(drawn, requires_grad=own.requires_grad)
    first.in_channels = channels


def widened(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: int) -> str | None:
    """The one kernel of `theirs` for 3 channels that is the network's (`own`) for `channels`; None where none is."""
    if channels == _RGB:
        return None
    found = [
        name
        for name, tensor in theirs.items()
        if name in own
        and own[name].ndim == tensor.ndim in (4, 5)
        and tensor.shape[1] == _RGB
        and own[name].shape[1] == channels
        if tensor.shape[:1] + tensor.shape[2:] == own[name].shape[:1] + own[name].shape[2:]
    ]
    return found[0] if len(found) == 1 else None


def adapted(kernels: Tensor, channels: int) -> Tensor:
    """`[out, 3, (d,) h, w]` -> `[out, channels, (d,) h, w]`: the sum of the three for 1, so that a grey image gives
    what it gave in RGB; else the three again and again, times 3 / `channels`. As timm's `adapt_input_conv`."""
    exact = kernels.float()
    if channels == 1:
        changed = exact.sum(1, keepdim=True)
    else:
        changed = exact.repeat(1, -(-channels // _RGB), *[1] * (kernels.ndim - 2))[:, :channels] * (_RGB / channels)
    return changed.to(kernels.dtype)
