"""What survives a crash: everything a resumed run needs, and nothing that can be computed again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raycls.config.names.metrics import Mode
from raycls.config.sections.search import decisive
from raycls.models.surgery import restore
from raycls.train.optim import EarlyStop
from raycls.train.reasons import Reason
from raycls.train.schedules import Plateau, improves

__all__ = ["Meter", "TrainState", "ema_decay", "ema_share", "moving_average"]


@dataclass
class Meter:
    """Sums since the last log line. It is part of the state, so that a resumed run logs the same line."""

    sums: dict[str, float] = field(default_factory=dict[str, float])
    """Over samples, by name: the loss, and what else the task measures."""
    count: int = 0
    skipped: int = 0
    """Steps that were skipped because their gradient was not finite."""

    def add(self, sums: Mapping[str, float], count: int) -> None:
        """Take the sums of a step over `count` samples; a `count` of 0 is a step that was skipped."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + (value if count else 0.0)
        self.count += count
        self.skipped += not count

    def take(self) -> dict[str, float]:
        """The means since the last call, and start anew; nothing where no sample was trained."""
        if not self.count and not self.skipped:
            return {}
        means = {name: value / max(1, self.count) for name, value in self.sums.items()}
        if self.skipped:
            means["skipped_steps"] = self.skipped
        self.sums, self.count, self.skipped = {}, 0, 0
        return means

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Meter:
        """From a checkpoint."""
        if "sums" in values:
            return cls(**values)
        # before tasks had names for their sums
        sums = {"loss": values["loss"], "top1": values["correct"]} if values["count"] or values["skipped"] else {}
        return cls(sums, values["count"], values["skipped"])


@dataclass
class TrainState:
    """The state after `step` optimizer steps. No generator is in it: seeds follow from the position."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    scaler: torch.amp.GradScaler  # type: ignore[name-defined]
    plateau: Plateau | None
    """What evaluations change of the learning rate, where the schedule is one of these."""
    early_stop: EarlyStop
    step: int = 0
    elapsed: float = 0.0
    """Seconds of training and evaluation up to here, over all starts."""
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    """Scalars of the newest evaluation."""
    finite: bool = True
    """Whether the newest step had a finite gradient. One without, in which loss scaling searches its scale, is not
    counted in `skipped_in_a_row`, but no state to go back to comes of it either."""
    skipped_in_a_row: int = 0
    good: int = 0
    """The step of the checkpoint that the run can go back to, see `Plan.rewind_every`; 0: there is none."""
    rewinds: int = 0
    """How often it went back."""
    finished: Reason = Reason.NONE
    """Why the run ended early, where it did: a resumed run must not go on."""
    unevaluated: bool = False
    """Whether the evaluation after `step` is still to be done: it was left for a checkpoint."""
    meter: Meter = field(default_factory=Meter)

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights that are evaluated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def judge(self, facts: Mapping[str, Any], scalars: Mapping[str, float], metric: str, mode: Mode) -> bool:
        """Take the evaluation after `step` and decide what follows from it; True if this is the best state so far.

        `scalars` are its values by name, `metric` (better in the direction of `mode`) is the one that decides, `facts`
        what else is noted of it. An evaluation with a loss that is not finite improves nothing.
        """
        value = decisive(scalars, metric)
        improved = improves(value, None if self.best is None else float(self.best["value"]), mode)
        self.last = {"step": self.step, **facts, **scalars}
        if improved:
            self.best = {**self.last, "metric": metric, "value": value}
        if self.plateau is not None:
            self.plateau.update(value, mode)
        if self.early_stop.update(value):
            self.finished = Reason.EARLY
        return improved

    def trees(self) -> dict[str, Any]:
        """Nested dictionaries of tensors and plain values, as a checkpoint stores them."""
        trees: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "train": {
                "step": self.step,
                "elapsed": self.elapsed,
                "best": self.best,
                "last": self.last,
                "skipped_in_a_row": self.skipped_in_a_row,
                "finished": str(self.finished),
                "unevaluated": self.unevaluated,
                "meter": vars(self.meter),
                **({} if self.plateau is None else {"plateau": self.plateau.state_dict()}),
                "early_stop": self.early_stop.state_dict(),
                "scaler": self.scaler.state_dict(),
                **({} if self.finite else {"finite": False}),
                **({"good": self.good, "rewinds": self.rewinds} if self.good else {}),
            },
        }
        if self.ema is not None:
            trees["ema"] = self.ema.state_dict()
        return trees

    def load(self, trees: dict[str, Any]) -> None:
        """Take over what `trees` returned."""
        restore(self.model, trees["model"])
        self.optimizer.load_state_dict(trees["optimizer"])
        # in the memory layout that they had: a norm adds up in the order of the memory
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if self.ema is not None:
            restore(self.ema, trees["ema"])
        values = trees["train"]
        self.step, self.elapsed = values["step"], values["elapsed"]
        self.best, self.last = values["best"], values["last"]
        self.skipped_in_a_row, self.finished = values["skipped_in_a_row"], Reason(values["finished"])
        self.finite = values.get("finite", not self.skipped_in_a_row)  # older checkpoints have the latter alone
        self.unevaluated = values.get("unevaluated", False)
        self.good, self.rewinds = values.get("good", 0), values.get("rewinds", 0)
        self.meter = Meter.of(values["meter"])
        if self.plateau is not None:
            self.plateau.load_state_dict(values["plateau"])
        self.early_stop.load_state_dict(values["early_stop"])
        if values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])

    def load_into(self, trees: dict[str, Any]) -> None:
        """`load`, with the options of the optimizer that it has here.

        They differ from the checkpoint's where a trial goes on from another one's weights.
        """
        options = [{name: group[name] for name in group if name != "params"} for group in self.optimizer.param_groups]
        self.load(trees)
        for group, own in zip(self.optimizer.param_groups, options, strict=True):
            group.update(own)

    def rewind(self, trees: dict[str, Any]) -> None:
        """Take over what `trees` returned, but what was done since: steps, time, evaluations, sums to be logged."""
        done = {name: getattr(self, name) for name in ("step", "elapsed", "best", "last", "meter", "rewinds")}
        self.load_into(trees)
        vars(self).update({**done, "rewinds": done["rewinds"] + 1, "unevaluated": False})


def moving_average(model: nn.Module, decay: float | str, warmup: str) -> AveragedModel | None:
    """An exponential moving average of weights and buffers, or None where `decay` is `off`.

    After the first update it is the weights; `ema_decay` has what follows.
    """
    if isinstance(decay, str):
        return None

    def update(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point():
            get_ema_multi_avg_fn(ema_decay(decay, warmup, int(count)))(averaged, current, count)
        else:  # a counter has no mean
            torch._foreach_copy_(averaged, current)  # pyright: ignore[reportPrivateImportUsage]

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def ema_decay(decay: float, warmup: str, updates: int) -> float:
    """The share that the average keeps at an update, after `updates` (1 or more) before it.

    With the `warmup` ramp it is at most (1 + updates) / (10 + updates), as in TensorFlow's ExponentialMovingAverage
    (`num_updates`): an average of few updates is not for ever what it began with.
    """
    return decay if warmup == "off" else min(decay, (1 + updates) / (10 + updates))


def ema_share(decay: float, warmup: str, updates: int) -> float:
    """The part of the average after `updates` updates that is the weights after the first one, in 0..1.

    A run of one update has nothing else: 0.
    """
    if updates < 2:
        return 0.0
    if warmup == "off":
        return decay ** (updates - 1)
    return math.prod(ema_decay(decay, warmup, update) for update in range(1, min(updates, 1000)))
