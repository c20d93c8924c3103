"""A range test of the learning rate (Smith 2017): a short training whose rate rises from step to step.

It is a run of its own, in a folder that the caller removes: no other run is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.errors import TrainError
from raycls.launch.trainer import make_job
from raycls.session import training
from raycls.session.job import World
from raycls.session.length.shortened import apart
from raycls.session.messages import Message, Trained, Working
from raycls.session.prepare import prepare
from raycls.session.setup import device_of, refuse_missing_gpu
from raycls.train.reasons import Reason

__all__ = ["Curve", "Range", "range_test", "suggested"]

_SMOOTHING = 0.9
"""Share of the mean that earlier losses keep at a step."""
_DIVERGED = 4.0
"""Times the lowest loss, from which on a higher rate is not tried."""
_FEWEST = 10
"""Steps without which a curve says nothing."""


@dataclass(frozen=True)
class Range:
    """Which rates are tried, from `low` to `high` in `steps` equal parts of the logarithm."""

    low: float = 1e-5
    high: float = 10.0
    steps: int = 100

    def rate(self, step: int) -> float:
        """The rate of a step, from 0: `optim.lr`, whatever part of it a layer has."""
        return self.low * (self.high / self.low) ** (step / (self.steps - 1))


@dataclass(frozen=True)
class Curve:
    """What was found: for each step its rate, its loss, and a mean of the losses up to it."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    diverged: bool
    """Whether the loss grew so much, or to no number, that the test was stopped."""


def range_test(
    run: Run, wanted: Range, folder: str, *, say: Callable[[str], None], work: Callable[[Working], None]
) -> Curve:
    """Train `run` with the rates of `wanted` in this process, and write only below `folder`.

    Everything else is as the config says for the start of the run: model, data, augmentation, optimizer, batch size.
    """
    tried = _as_test(run, wanted, folder)
    refuse_missing_gpu(tried)
    prepared = prepare(tried, new=False, command=("raycls", "lr-find"), say=say, record=b"")
    rates: list[float] = []
    losses: list[float] = []
    over = False

    def post(message: Message) -> None:
        nonlocal over
        if isinstance(message, Working):
            work(message)
        elif isinstance(message, Trained) and not over:
            loss = float(message.record["loss"])
            over = bool(message.record.get("skipped_steps")) or not math.isfinite(loss)
            if not over:
                rates.append(wanted.rate(int(message.record["step"]) - 1))
                losses.append(loss)
                means = smoothed(losses)
                over = len(losses) > _FEWEST and means[-1] > _DIVERGED * min(means)

    device = device_of(tried, torch.cuda.device_count())
    job = make_job(tried, prepared.folder, prepared.plan, prepared.dataset, device)
    stop = lambda: Reason.SIGTERM if over else Reason.NONE  # noqa: E731
    training.train(job, World(device=torch.device(device), post=post, stop_requested=stop))
    if len(losses) < _FEWEST:
        raise TrainError(
            "the range test ended before there was a curve",
            found=f"{len(losses)} steps, then a gradient that is not finite",
            fix="begin at a lower rate",
        )
    return Curve(tuple(rates), tuple(losses), tuple(smoothed(losses)), over)


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential mean up to each loss, as if there had been no step before the first (Kingma and Ba 2015)."""
    mean, found = 0.0, list[float]()
    for number, loss in enumerate(losses, 1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        found.append(mean / (1 - _SMOOTHING**number))
    return found


def suggested(tested: Curve) -> float | None:
    """A tenth of the rate at which the smoothed loss is lowest; None where the loss never fell before it.

    There it falls, and a step is far from one that diverges (Howard and Gugger 2020, fastai's `lr_find`).
    """
    at = min(range(len(tested.smooth)), key=lambda step: tested.smooth[step])
    fell = tested.smooth[0] - tested.smooth[at]
    if at < 2 or not fell > 0.02 * abs(tested.smooth[0]):
        return None
    return tested.rates[at] / 10


def _as_test(run: Run, wanted: Range, folder: str) -> Run:
    values = apart(run, folder, "lr-find")
    values["scale"].update(workers=0)
    values["train"].update(duration=f"{wanted.steps}st", ledger="off", non_finite="skip")
    if run.train.batch_norm == "sync":  # one micro-batch is the global batch
        values["train"].update(batch_norm="micro_batch", micro_batches=1)
    values["schedule"] = {"name": "range_test", "args": {"min_factor": wanted.low / wanted.high}}
    values["optim"].update(lr=wanted.high, lr_rule="none", lr_base_batch=256, ema="off", ema_warmup="ramp")
    return config.from_dict(values)
