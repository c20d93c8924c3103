"""Losses of classification, each a function of its own arguments, and how they are balanced.

One more is one more function. It may stand in a file under the working directory, and `loss.name: module:function`
names it. It takes arguments by keyword, which `loss.args` sets, and returns a function of logits `[B, classes] float32`
and targets that gives the loss, summed over the samples: who divides, and by what, is decided once per global batch,
whatever parts of it are computed where. Targets are labels `[B] int64`, or with operations of `augment.batch` that mix
`[B, classes] float32`. Where `loss.balance` weighs the classes, a third argument is their weights, `[classes] float32`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from raycls.config.names.builtin import LOSSES
from raycls.config.sections.task import LossConfig
from raycls.errors import ConfigError
from raycls.plugins import build
from raycls.tasks.losses.balance import class_weights, log_priors

__all__ = ["Loss", "balanced_loss", "build_loss", "check_loss", "each_of", "refuse_loss"]

Loss = Callable[..., Tensor]
"""Logits, targets, and perhaps weights -> a sum; see the module's docstring."""


def build_loss(config: LossConfig) -> Loss:
    """The loss of a config, as it is without `loss.balance`. Raises ConfigError where name or arguments do not fit."""
    return build("loss", config.name, config.args, LOSSES, given={}, where="loss")


def balanced_loss(
    config: LossConfig, class_counts: Sequence[int], device: torch.device | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a config as a function of logits and targets; `class_counts` are the training samples per class."""
    loss = build_loss(config)
    if config.balance in ("weights", "effective_number"):
        beta = config.balance_beta if config.balance == "effective_number" else None
        weights = class_weights(class_counts, beta).to(device)
        return lambda logits, targets: loss(logits, targets, weights)
    if config.balance == "logit_adjust":
        priors = config.balance_tau * log_priors(class_counts).to(device)
        return lambda logits, targets: loss(logits + priors, targets)
    return loss


def each_of(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`loss`, a sum over samples, as a function of the same arguments that gives it of each sample, `[B]`."""

    def one(logits: Tensor, target: Tensor) -> Tensor:
        return loss(logits[None], target[None])

    return torch.vmap(one)


def check_loss(config: LossConfig, class_counts: Sequence[int], *, mixed: bool, weighted: bool = False) -> None:
    """Build the loss and try it on three samples, mixed ones too where it will see such. ConfigError where it is not a
    sum over samples, or cannot take what it will be called with. `weighted`: it is asked for each sample's."""
    classes = len(class_counts)
    loss = balanced_loss(config, class_counts, None)
    labels = torch.tensor([0, classes - 1, 0])
    _check_sum(config, loss, labels)
    if weighted:
        _check_each(config, loss, labels)
    if mixed:
        shares = torch.full((3, classes), 0.25 / classes)
        shares[torch.arange(3), labels] += 0.75
        _check_sum(config, loss, shares)


def refuse_loss(config: LossConfig, task: str, instead: str) -> None:
    """ConfigError where the section `loss` says anything to a task that has a loss of its own."""
    if config.model_copy(update={"args": {}}) != LossConfig() or any(config.args.values()):
        raise ConfigError(
            f"the task {task} has a loss of its own",
            where="loss",
            found=f"loss.name {config.name}, or options of it",
            fix=f"leave out the section loss; {instead}",
        )


def _check_sum(config: LossConfig, loss: Callable[[Tensor, Tensor], Tensor], targets: Tensor) -> None:
    classes = int(targets.shape[1]) if targets.ndim == 2 else int(targets.max()) + 1
    logits = torch.linspace(-1, 1, 3 * classes).view(3, classes)
    try:
        whole = loss(logits, targets)
        parts = [loss(logits[:1], targets[:1]), loss(logits[1:], targets[1:])]
        sums = whole.shape == () and torch.allclose(whole, parts[0] + parts[1], rtol=1e-3, atol=1e-5)
        found = f"{whole.tolist()} for three samples, {[part.tolist() for part in parts]} for the first and the others"
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a plug-in raises)
        sums, found = False, f"{type(error).__name__}: {error}"
    if not sums:
        raise _refused(config, found, mixed=targets.ndim == 2)


def _check_each(config: LossConfig, loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor) -> None:
    logits = torch.linspace(-1, 1, 3 * (int(labels.max()) + 1)).view(3, -1)
    try:
        each = each_of(loss)(logits, labels)
        alone = [loss(logits[row : row + 1], labels[row : row + 1]) for row in range(3)]
        same, found = torch.allclose(each, torch.stack(alone), rtol=1e-3, atol=1e-5), str(each.tolist())
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a plug-in raises)
        same, found = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not same:
        raise ConfigError(
            "the loss of a single sample cannot be had from this loss, which data.weight needs",
            where="loss.name, data.weight",
            found=f"{config.name}: {found}",
            valid="a function that torch.vmap can map over samples: no branch on values, nothing written in place",
            fix="write it with torch.where instead of if, or leave data.weight out",
        )


def _refused(config: LossConfig, found: str, *, mixed: bool) -> ConfigError:
    facts: dict[str, Any] = {"where": "loss.name", "found": f"{config.name}: {found}"}
    weighs = config.balance in ("weights", "effective_number")
    takes = f"logits [B, classes] and labels {'[B, classes]' if mixed else '[B]'}"
    takes += ", and weights [classes]," if weighs else ""
    facts["valid"] = f"a function of {takes} that returns the sum over B, a tensor of shape []"
    if mixed:
        fix = "let it take the shares of the classes too, or leave augment.batch empty"
        return ConfigError("the loss is no sum over samples with mixed labels", fix=fix, **facts)
    if weighs:
        fix = "let it take the weights of the classes, or set loss.balance to none"
        return ConfigError("the loss is no sum over samples with weights of classes", fix=fix, **facts)
    fix = 'use reduction="sum": each global batch is divided by its size once'
    return ConfigError("the loss is no sum over samples", fix=fix, **facts)
