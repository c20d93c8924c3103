"""MoCo v2: a view is near to the key of its other view, and far from the keys of images seen before."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.config.sections.types import Count, Positive, UnderOne
from raycls.config.write import override
from raycls.errors import ConfigError
from raycls.models.projected import Momentum
from raycls.tasks.base import Setting
from raycls.tasks.contrastive.views import Contrastive, Views, full_precision

__all__ = ["MoCo"]


class MoCo(Contrastive):
    """He et al. 2020 with the projection and the temperature of Chen, Fan, Girshick and He 2020 (MoCo v2).

    The negatives are the `queue` (65,536 there) of the newest keys, whatever the number of workers.
    """

    exact = True

    def __init__(
        self,
        setting: Setting,
        *,
        temperature: Positive = 0.2,
        dimensions: Count = 128,
        queue: Count = 4096,
        momentum: UnderOne = 0.999,
        groups: Count = 4,
    ) -> None:
        super().__init__(setting)
        if queue < setting.batch_size:
            raise ConfigError(
                "the queue is smaller than one batch of keys",
                where="task.args.queue",
                found=str(queue),
                valid=f"{setting.batch_size} (data.batch_size) or more",
                fix=override("task.args.queue", 16 * setting.batch_size),
            )
        self._temperature, self._dimensions = temperature, dimensions
        self._queue, self._momentum, self._groups = queue, momentum, groups

    def network(self, model: nn.Module) -> nn.Module:
        return Momentum(
            model,
            len(self.setting.classes),
            self._dimensions,
            self.setting.seed,
            queue=self._queue,
            batch_size=self.setting.batch_size,
            momentum=self._momentum,
            groups=self._groups,
        )

    def contrasted(self, model: nn.Module, views: Views) -> dict[str, Tensor]:
        """`contrast` and `probe`; `top1` of the probe, and as `matched` how often the own key is the nearest one."""
        projections, logits, keys = model(views.images, views.others, self.start)
        queue = cast("Tensor", model.get_buffer("queue"))
        with full_precision(views.images):
            unit = F.normalize(projections.float(), dim=1)
            own = (unit * keys).sum(1, keepdim=True)
            similar = torch.cat([own, unit @ queue.clone().T], dim=1) / self._temperature
        target = torch.zeros(len(unit), dtype=torch.int64, device=unit.device)
        return {
            "contrast": F.cross_entropy(similar, target, reduction="sum"),
            "matched": (similar.detach().argmax(1) == 0).sum(),
            **self.probed(logits, views.labels),
        }
