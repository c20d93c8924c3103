"""SimCLR: views of one image are near to each other, and far from those of the others in the micro-batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.config.sections.types import Count, Positive
from raycls.models.projected import Projected
from raycls.tasks.base import Setting
from raycls.tasks.contrastive.views import Contrastive, Views, full_precision

__all__ = ["SimCLR", "nt_xent"]


class SimCLR(Contrastive):
    """Chen, Kornblith, Norouzi and Hinton 2020, section 2. The negatives are the other views of a micro-batch, so that
    they do not depend on the number of workers: `data.batch_size` / `train.micro_batches` images decide how many.
    """

    least = 2

    def __init__(self, setting: Setting, *, temperature: Positive = 0.5, dimensions: Count = 128) -> None:
        super().__init__(setting)
        self._temperature, self._dimensions = temperature, dimensions

    def network(self, model: nn.Module) -> nn.Module:
        return Projected(model, len(self.setting.classes), self._dimensions, self.setting.seed)

    def contrasted(self, model: nn.Module, views: Views) -> dict[str, Tensor]:
        """`contrast` and `probe`; `top1` of the probe, and as `matched` how often a view's nearest is its own other."""
        projections, logits = model(torch.cat([views.images, views.others]))
        with full_precision(views.images):
            contrast, matched = nt_xent(projections.float(), self._temperature)
        return {"contrast": contrast, "matched": matched, **self.probed(logits, views.labels)}


def nt_xent(projections: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss of equation 1 for `projections` `[2B, D]`, where row i and row B + i are of one image: the mean of the
    two views, summed over the B images. And how many images match: views whose nearest is their own other, halved.
    """
    count = len(projections) // 2
    unit = F.normalize(projections, dim=1)
    similar = (unit @ unit.T / temperature).masked_fill(
        torch.eye(2 * count, dtype=torch.bool, device=unit.device), float("-inf")
    )
    target = torch.arange(2 * count, device=unit.device).roll(count)
    loss = F.cross_entropy(similar, target, reduction="sum") / 2
    return loss, (similar.detach().argmax(1) == target).sum() / 2
