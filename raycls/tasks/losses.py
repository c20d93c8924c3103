"""Losses of classification, each a function of its own arguments.

One more is one more function. It may stand in a file under the working directory, and `loss.name: module:function`
names it. It takes arguments by keyword, which `loss.args` sets, and returns a function of logits `[B, classes] float32`
and labels `[B] int64` that gives the loss, summed over the samples: who divides, and by what, is decided once per
global batch, whatever parts of it are computed where.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from raycls.config.names.builtin import LOSSES
from raycls.config.sections.task import LossConfig
from raycls.config.sections.types import UnderOne
from raycls.errors import ConfigError
from raycls.plugins import build

__all__ = ["Loss", "build_loss", "check_loss", "cross_entropy"]

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig) -> Loss:
    """The loss of a config. Raises ConfigError where name or arguments do not fit."""
    return build("loss", config.name, config.args, LOSSES, given={}, where="loss")


def check_loss(config: LossConfig, classes: int) -> None:
    """Build the loss and try it on three samples. ConfigError where it is not a sum over samples."""
    loss, labels = build_loss(config), torch.tensor([0, classes - 1, 0])
    logits = torch.linspace(-1, 1, 3 * classes).view(3, classes)
    try:
        whole = loss(logits, labels)
        parts = [loss(logits[:1], labels[:1]), loss(logits[1:], labels[1:])]
        sums = whole.shape == () and torch.allclose(whole, parts[0] + parts[1], rtol=1e-3, atol=1e-5)
        found = f"{whole.tolist()} for three samples, {[part.tolist() for part in parts]} for the first and the others"
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a plug-in raises)
        sums, found = False, f"{type(error).__name__}: {error}"
    if not sums:
        raise ConfigError(
            "the loss is no sum over samples",
            where="loss.name",
            found=f"{config.name}: {found}",
            valid="a function of logits [B, classes] and labels [B] that returns the sum over B, a tensor of shape []",
            fix='use reduction="sum": each global batch is divided by its size once',
        )


def cross_entropy(*, label_smoothing: UnderOne = 0.0) -> Loss:
    """Cross entropy; `label_smoothing` is the weight of the uniform distribution (Szegedy et al. 2016, section 7)."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)

    return loss
