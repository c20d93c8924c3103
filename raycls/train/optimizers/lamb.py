"""LAMB: Adam's update, as long as the weights of its layer are."""

# torch has no public name for its foreach functions
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from raycls.config.sections.types import Positive, UnderOne
from raycls.train.optimizers.library import Groups
from raycls.train.optimizers.state import Grouped, adapted, counted, kept

__all__ = ["Lamb", "lamb"]


def lamb(
    groups: Groups,
    lr: float,
    *,
    betas: tuple[UnderOne, UnderOne] = (0.9, 0.999),
    eps: Positive = 1e-6,
    adapt: Literal["weights", "all"] = "weights",
) -> Optimizer:
    """LAMB (You et al. 2020), weight decay inside of the adapted update; `weights` adapts no biases and norms."""
    return Lamb(groups, {"lr": lr, "betas": betas, "eps": eps, "adapt": adapt, "weight_decay": 0.0})


class Lamb(Grouped):
    """You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2, with phi(z) = z."""

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        (first, second), states = group["betas"], [self.state[parameter] for parameter in parameters]
        means = [kept(state, "mean", parameter) for state, parameter in zip(states, parameters, strict=True)]
        squares = [kept(state, "square", parameter) for state, parameter in zip(states, parameters, strict=True)]
        steps = [counted(state) for state in states]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        below = torch._foreach_div(squares, [1 - second**step for step in steps])
        torch._foreach_sqrt_(below)
        torch._foreach_add_(below, group["eps"])
        updates = torch._foreach_div(means, [1 - first**step for step in steps])
        torch._foreach_div_(updates, below)
        torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        lengths = torch._foreach_norm(parameters), torch._foreach_norm(updates)
        for parameter, update, weight, length in zip(parameters, updates, *lengths, strict=True):
            if adapted(parameter, group["adapt"]):
                update.mul_(torch.where((weight > 0) & (length > 0), weight / length, 1.0))
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])
