"""Which options have an effect beside certain values of another option alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raycls.config.names.builtin import TASKS, VOLUME_TASKS
from raycls.config.write import flow

__all__ = ["EFFECTIVE", "Beside"]


@dataclass(frozen=True)
class Beside:
    """Where an option has an effect: `choice` has one of `values`, or any but them where `other`."""

    choice: str
    values: tuple[Any, ...]
    other: bool = False

    def holds(self, value: Any) -> bool:
        return (value in self.values) is not self.other

    def __str__(self) -> str:
        values = " or ".join(flow(value) for value in self.values)
        return f"{self.choice}: {'anything but ' if self.other else ''}{values}"


_IMAGE_FILES = Beside("data.source.name", ("cifar", "arrays"), other=True)
_VOLUMES = Beside("task.name", tuple(name for name in TASKS if name not in VOLUME_TASKS), other=True)
_PATCHES = Beside("task.name", tuple(name for name in TASKS if name != "volume_segmentation"), other=True)
_ON_RAY = Beside("scale.workers", (0,), other=True)

_PBT = ("interval", "quantile", "resample")

EFFECTIVE: Mapping[str, Beside] = {
    "data.processes": Beside("data.executor", ("processes",)),
    **{f"data.{name}": _IMAGE_FILES for name in ("formats", "max_pixels", "on_bad_image")},
    "data.max_bad_fraction": Beside("data.on_bad_image", ("skip",)),
    "data.fold.index": Beside("data.fold.of", ("off",), other=True),
    **{f"data.shuffle_{name}": Beside("data.shuffle", ("window",)) for name in ("chunk", "window")},
    **{f"data.{name}": _VOLUMES for name in ("window", "spacing")},
    "data.patch.size": _PATCHES,
    **{f"data.patch.{name}": Beside("data.patch.size", ("off",), other=True) for name in ("per_volume", "foreground")},
    **{f"evaluate.sliding_window.{name}": _PATCHES for name in ("size", "overlap", "mode", "batch_size")},
    "optim.weight_decay_on": Beside("optim.weight_decay", (0,), other=True),
    "optim.lr_base_batch": Beside("optim.lr_rule", ("none",), other=True),
    "loss.balance_beta": Beside("loss.balance", ("effective_number",)),
    "loss.balance_tau": Beside("loss.balance", ("logit_adjust",)),
    "optim.ema_warmup": Beside("optim.ema", ("off",), other=True),
    "train.early_stop.min_delta": Beside("train.early_stop.patience", ("off",), other=True),
    **{f"train.rewind.{name}": Beside("train.non_finite", ("rewind",)) for name in ("after", "times")},
    **{f"scale.{name}": _ON_RAY for name in ("cpus_per_worker", "max_failures", "max_preemption_failures", "wait")},
    "scale.resize_every": Beside("scale.workers", (0, 1), other=True),
    "track.mlflow.experiment": Beside("track.mlflow.uri", ("off",), other=True),
    **{f"track.wandb.{name}": Beside("track.wandb.mode", ("off",), other=True) for name in ("project", "entity")},
    "search.scheduler.grace": Beside("search.scheduler.name", ("asha", "median")),
    **{f"search.scheduler.{name}": Beside("search.scheduler.name", ("asha",)) for name in ("reduction", "brackets")},
    **{f"search.scheduler.{name}": Beside("search.scheduler.name", ("pbt",)) for name in _PBT},
}
"""Options, and what each needs beside it. What has an effect beside everything is not here."""
