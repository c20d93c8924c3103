"""The optimizers of `torch.optim`, with the arguments that matter.

Each of raycls's own is in a file beside this one. One more may stand in a file under the working directory, and
`optim.name: module:function` names it. It takes `groups` (dicts with `params` and `weight_decay`, as torch's optimizers
do) and `lr`, further arguments by keyword, which `optim.args` sets, and returns a `torch.optim.Optimizer` over all of
the parameters. The rate of its groups is set before each step. An annotation such as `UnderOne`
(`raycls.config.sections.types`) or `Annotated[float, Field(gt=0)]` is checked before anything starts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch.optim import Optimizer

from raycls.config.sections.types import NotNegative, Positive, UnderOne

__all__ = ["adafactor", "adam", "adamw", "nadam", "rmsprop", "sgd"]

Groups = list[dict[str, Any]]


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


def nadam(
    groups: Groups,
    lr: float,
    *,
    betas: tuple[UnderOne, UnderOne] = (0.9, 0.999),
    eps: Positive = 1e-8,
    momentum_decay: NotNegative = 0.004,
    decay: Literal["decoupled", "l2"] = "decoupled",
) -> Optimizer:
    """Adam with Nesterov momentum (Dozat 2016), weight decay `decoupled` as in AdamW or as L2.

    `momentum_decay` is the psi of its momentum schedule: that of step t is beta1 (1 - 0.96**(t psi) / 2).
    """
    decoupled = decay == "decoupled"
    return torch.optim.NAdam(
        groups,
        lr=lr,
        betas=betas,
        eps=eps,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled,
        foreach=True,
    )


def adafactor(
    groups: Groups,
    lr: float,
    *,
    beta2_decay: Annotated[float, Field(lt=0, allow_inf_nan=False)] = -0.8,
    clip_threshold: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0,
    min_scale: NotNegative = 1e-3,
) -> Optimizer:
    """Adafactor (Shazeer and Stern 2018, algorithm 4), decoupled weight decay: second moments by row and column.

    Its step t is relative: max(`min_scale`, root mean square of the parameter) times min(`lr`, 1/sqrt(t)), with
    updates whose root mean square is at most `clip_threshold`. beta2 at step t is 1 - t**`beta2_decay`.
    """
    eps = (None, min_scale)
    return torch.optim.Adafactor(groups, lr=lr, beta2_decay=beta2_decay, eps=eps, d=clip_threshold, foreach=True)


def rmsprop(
    groups: Groups, lr: float, *, alpha: UnderOne = 0.99, eps: Positive = 1e-8, momentum: UnderOne = 0.9
) -> Optimizer:
    """RMSprop with momentum, `alpha` its smoothing constant, weight decay as L2."""
    return torch.optim.RMSprop(groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum, foreach=True)
