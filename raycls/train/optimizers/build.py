"""From `optim` to the optimizer of a network."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from raycls.config.names.builtin import OPTIMIZERS
from raycls.config.sections.optim import OptimConfig
from raycls.errors import ModelError
from raycls.models.finetune import check_factors
from raycls.models.pruned import hold_masks
from raycls.models.surgery import Rate, parameter_groups
from raycls.plugins import build

__all__ = ["build_optimizer"]


def build_optimizer(config: OptimConfig, model: nn.Module, rates: dict[str, Rate] | None = None) -> Optimizer:
    """The optimizer over the trainable parameters of `model`, at the full `optim.lr`; masked weights stay zero.

    `rates` are those of `finetune`, which the loop multiplies the learning rate by.

    Raises ModelError where the model has none, and ConfigError where name or arguments do not fit.
    """
    groups = parameter_groups(model, config.weight_decay, config.weight_decay_on, rates)
    if not groups:
        raise ModelError("the model has no parameters that can be trained", where="model.name")
    given = {"groups": groups, "lr": config.lr}
    made: Optimizer = build(
        "optimizer", config.name, config.args, OPTIMIZERS, given=given, where="optim", returns=Optimizer
    )
    check_factors(config.name, model, made, rates or {})
    hold_masks(model, made)
    return made
