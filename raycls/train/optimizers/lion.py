"""Lion: the sign of an interpolated momentum."""

# torch has no public name for its foreach functions
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from raycls.config.sections.types import UnderOne
from raycls.train.optimizers.library import Groups
from raycls.train.optimizers.state import Grouped, kept

__all__ = ["Lion", "lion"]


def lion(groups: Groups, lr: float, *, betas: tuple[UnderOne, UnderOne] = (0.9, 0.99)) -> Optimizer:
    """Lion (Chen et al. 2023), decoupled weight decay. Its rate is 3 to 10 times smaller than that of AdamW."""
    return Lion(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})


class Lion(Grouped):
    """Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2."""

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        (first, second), lr = group["betas"], group["lr"]
        momenta = [kept(self.state[parameter], "momentum", parameter) for parameter in parameters]
        updates = torch._foreach_lerp(momenta, gradients, 1 - first)
        torch._foreach_sign_(updates)
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-lr)
        torch._foreach_lerp_(momenta, gradients, 1 - second)
