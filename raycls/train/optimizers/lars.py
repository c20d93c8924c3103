"""LARS: a rate for each layer, by how long its weights and its gradient are."""

# torch has no public name for its foreach functions
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from raycls.config.sections.types import Positive, UnderOne
from raycls.train.optimizers.library import Groups
from raycls.train.optimizers.state import Grouped, adapted, kept

__all__ = ["Lars", "lars"]


def lars(
    groups: Groups,
    lr: float,
    *,
    momentum: UnderOne = 0.9,
    trust: Positive = 0.001,
    adapt: Literal["weights", "all"] = "weights",
) -> Optimizer:
    """LARS (You et al. 2017), weight decay as L2. `trust` is its eta; `weights` adapts no biases and norms."""
    return Lars(groups, {"lr": lr, "momentum": momentum, "trust": trust, "adapt": adapt, "weight_decay": 0.0})


class Lars(Grouped):
    """You et al. 2017, "Large Batch Training of Convolutional Networks", equation 6 and algorithm 1.

    The rate is inside of the momentum, as there: what earlier steps left keeps the rate of its own step.
    """

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        decay = group["weight_decay"]
        lengths = torch._foreach_norm(parameters), torch._foreach_norm(gradients)
        updates = torch._foreach_add(gradients, parameters, alpha=decay)
        for parameter, update, weight, gradient in zip(parameters, updates, *lengths, strict=True):
            if adapted(parameter, group["adapt"]):
                local = group["trust"] * weight / (gradient + decay * weight)
                update.mul_(torch.where((weight > 0) & (gradient > 0), local, 1.0))
        momenta = [kept(self.state[parameter], "momentum", parameter) for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates, alpha=group["lr"])
        torch._foreach_sub_(parameters, momenta)
