"""Clipping: the gradient of a step, as the optimizer may see it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from raycls.config.sections.optim import OptimConfig
from raycls.models.surgery import last_layer

__all__ = ["Clip", "build_clip", "gradient_norm"]

Clip = Callable[[], float]
"""Clips the gradient where it is and returns its L2 norm, as it was before."""


def build_clip(config: OptimConfig, model: nn.Module) -> Clip:
    """What `optim.clip_norm`, `optim.clip_value` or `optim.agc` does to the gradient of `model`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def clip() -> float:
        norm = gradient_norm(parameters, math.inf if isinstance(config.clip_norm, str) else config.clip_norm)
        if not isinstance(config.clip_value, str):
            nn.utils.clip_grad_value_(parameters, config.clip_value, foreach=True)
        if not isinstance(config.agc, str):
            adaptive(spared, config.agc)
        return norm

    head = {id(parameter) for parameter in last_layer(model)}
    spared = [parameter for parameter in parameters if id(parameter) not in head]
    return clip


def gradient_norm(parameters: list[nn.Parameter], most: float) -> float:
    """The L2 norm of the whole gradient, which is scaled down to `most` where it is longer."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    value = float(norm)
    if most < value < math.inf:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm, foreach=True)
    return value


@torch.no_grad()
def adaptive(parameters: list[nn.Parameter], most: float, eps: float = 1e-3) -> None:
    """Scale the gradient of each unit down to `most` times the norm of its weights, or of `eps` where they are shorter.

    Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization", equation 3. A unit is
    an output of a layer; of biases and normalisation all that a layer has.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            longest = most * _norms(parameter).clamp(min=eps)
            lengths = _norms(parameter.grad)
            parameter.grad.mul_(torch.where(lengths > longest, longest / lengths, 1.0))


def _norms(tensor: Tensor) -> Tensor:
    """The L2 norm of each row of a weight, of a vector as a whole; it multiplies `tensor`."""
    if tensor.ndim < 2:
        return tensor.norm()
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)
