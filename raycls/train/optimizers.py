"""Optimizers, each a function of the parameter groups, the learning rate and its own arguments.

One more is one more function. It may stand in a file under the working directory, and `optim.name: module:function`
names it. It takes `groups` (dicts with `params` and `weight_decay`, as torch's optimizers do) and `lr`, further
arguments by keyword, which `optim.args` sets, and returns a `torch.optim.Optimizer` over all of the parameters. The
rate of its groups is set before each step. An annotation such as `UnderOne` (`raycls.config.sections.types`) or
`Annotated[float, Field(gt=0)]` is checked before anything starts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from raycls.config.names.builtin import OPTIMIZERS
from raycls.config.sections.optim import OptimConfig
from raycls.config.sections.types import Positive, UnderOne
from raycls.errors import ModelError
from raycls.models.pruned import hold_masks
from raycls.models.surgery import parameter_groups
from raycls.plugins import build

__all__ = ["adam", "adamw", "build_optimizer", "rmsprop", "sgd"]

Groups = list[dict[str, Any]]


def build_optimizer(config: OptimConfig, model: nn.Module) -> Optimizer:
    """The optimizer over the trainable parameters of `model`, at the full `optim.lr`; masked weights stay zero.

    Raises ModelError where the model has none, and ConfigError where name or arguments do not fit.
    """
    groups = parameter_groups(model, config.weight_decay, config.weight_decay_on)
    if not groups:
        raise ModelError("the model has no parameters that can be trained", where="model.name")
    given = {"groups": groups, "lr": config.lr}
    made: Optimizer = build(
        "optimizer", config.name, config.args, OPTIMIZERS, given=given, where="optim", returns=Optimizer
    )
    hold_masks(model, made)
    return made


def sgd(groups: Groups, lr: float, *, momentum: UnderOne = 0.9, nesterov: bool = False) -> Optimizer:
    """Gradient descent with momentum, weight decay as L2."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, foreach=True)


def adam(
    groups: Groups, lr: float, *, betas: tuple[UnderOne, UnderOne] = (0.9, 0.999), eps: Positive = 1e-8
) -> Optimizer:
    """Adam (Kingma and Ba 2015), weight decay as L2."""
    return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps, foreach=True)


def adamw(
    groups: Groups, lr: float, *, betas: tuple[UnderOne, UnderOne] = (0.9, 0.999), eps: Positive = 1e-8
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, foreach=True)


def rmsprop(
    groups: Groups, lr: float, *, alpha: UnderOne = 0.99, eps: Positive = 1e-8, momentum: UnderOne = 0.9
) -> Optimizer:
    """RMSprop with momentum, `alpha` its smoothing constant, weight decay as L2."""
    return torch.optim.RMSprop(groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum, foreach=True)
