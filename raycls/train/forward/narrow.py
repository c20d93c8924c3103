"""Convolutions on a CPU whose gradients in bf16 are not those of the network: they are computed in float32.

torch 2.15 leaves the gradient of the weights partly unwritten, so that memory of something else is trained on, where an
image is smaller than the kernel that moves over it (findings/torch-bf16-narrow-convolution.sh). The other convolutions
of a network, and all of an evaluation, are computed as `train.amp` says.
"""

# torch has no public name for the class that all convolutions have in common
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from raycls.train.forward.replace import replaced

__all__ = ["narrow", "widened"]


@contextmanager
def widened(model: nn.Module, device: torch.device) -> Iterator[None]:
    """In the block the convolutions of `model` that have such gradients compute in float32, on the CPU."""
    with ExitStack() as stack:
        if device.type == "cpu":
            for module in model.modules():
                if isinstance(module, _ConvNd) and max(module.kernel_size) > 1:
                    stack.enter_context(replaced(module, partial(_forward, module, module.forward)))
        yield


def narrow(module: _ConvNd, size: tuple[int, ...]) -> bool:
    """Whether an image of `size` (depth, height, width; of a transposed convolution: the one that comes out) is
    smaller than the kernel, where that matters: always in three dimensions, with a stride in fewer."""
    kernel = [step * (length - 1) + 1 for step, length in zip(module.dilation, module.kernel_size, strict=True)]
    if isinstance(module, _ConvTransposeNd):
        given = zip(size, module.stride, module.padding, kernel, module.output_padding, strict=True)
        size = tuple((length - 1) * stride - 2 * int(pad) + reach + more for length, stride, pad, reach, more in given)
    if len(size) < 3 and max(module.stride) == 1:
        return False
    return any(length < reach for length, reach in zip(size, kernel, strict=True))


def _forward(module: _ConvNd, forward: Callable[..., Tensor], images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    mixed = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    dims = len(module.kernel_size)
    if not (mixed and torch.is_grad_enabled() and narrow(module, tuple(images.shape[-dims:]))):
        return forward(images, *args, **kwargs)
    with torch.autocast("cpu", enabled=False):
        return forward(images.float(), *args, **kwargs).bfloat16()  # as others come out
