"""A few steps of the real loop in a throw-away run folder: how fast one worker of this run would be."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.errors import RayclsError, to_json
from raycls.launch.trainer import make_job
from raycls.quantities import plural
from raycls.session import training
from raycls.session.job import World
from raycls.session.length.limits import check_acting
from raycls.session.messages import Advice, Message, Trained
from raycls.session.prepare import plan_of, prepare
from raycls.train.reasons import Reason
from raycls.workdir import set_workdir

__all__ = ["rehearse", "rehearsed"]

_STEPS = 10
_FIRST = 2
"""Steps that are not counted: they choose kernels and fill caches."""


def rehearse(settings: dict[str, Any], folder: str, workdir: str, device: str, seconds: float) -> dict[str, Any]:
    """Train a few steps of one worker's part; stops at the step boundary after `seconds`.

    Returns `seconds` (of each counted step), `images` (of all of them), `batch` (of one), `data_wait` (the part of the
    time that decoding took), `samples`, `steps_per_epoch`, `total_steps`, `parameters`, `device`, `warnings` (`what`
    and `fix` of each that a run would be told before its first step), and `why` where no step was counted; or
    `error`, an error of ours as JSON.
    Everything is written below `folder`, which the caller removes.
    """
    end = time.monotonic() + seconds
    set_workdir(workdir)
    os.chdir(workdir)
    try:
        return _rehearse(config.from_dict(settings), folder, device, end)
    except RayclsError as error:
        return {"error": to_json(error)}


def rehearsed(run: Run, folder: str, device: str) -> Run:
    """`run` as one worker's part of it, for a few steps that leave nothing but files below `folder`.

    The learning rate is next to nothing: what is measured costs the same, and no warm-up is needed.
    """
    parts = max(1, run.scale.max_workers)
    micro = run.train.micro_batches if isinstance(run.train.micro_batches, int) else parts
    values = config.to_dict(run)
    values["run"].update(storage=folder, name="rehearsal")
    values["scale"].update(workers=0, device=device)
    values["data"].update(executor="inline", batch_size=-(-run.data.batch_size // parts))
    if run.data.source.name == "digits" and not os.path.exists(run.data.source.path or ""):
        values["data"]["source"]["path"] = os.path.join(folder, "digits")  # it would write them beside the user's files
    values["train"].update(
        duration=f"{_STEPS}st", micro_batches=max(1, micro // parts), ledger="off", budget="off", non_finite="skip"
    )
    values["train"]["early_stop"] = {"patience": "off"}
    values["schedule"] = {}
    values["optim"].update(lr=1e-9, ema_warmup="ramp")  # an average of so few steps is not that of the run
    values["evaluate"].update(every="off")
    values["checkpoint"].update(every="100%")
    values["track"] = {"log_every": "1st"}  # and no tracker: a rehearsal is nobody's run
    values["search"] = {}
    return config.from_dict(values)


def _rehearse(run: Run, folder: str, device: str, end: float) -> dict[str, Any]:
    small = rehearsed(run, folder, device)
    dataset = open_dataset(small.data)
    plan = plan_of(run, dataset)
    check_acting(run, plan)
    command = ("raycls", "doctor")
    prepared = prepare(small, new=False, command=command, say=lambda text: None, dataset=dataset, record=b"")
    records: list[dict[str, Any]] = []
    told: list[dict[str, str]] = []

    def post(message: Message) -> None:
        if isinstance(message, Trained):
            records.append(message.record)
        elif isinstance(message, Advice):
            told.append({"what": message.what, "fix": message.fix})

    def stop_requested() -> Reason:
        return Reason.SIGTERM if time.monotonic() > end else Reason.NONE

    job = make_job(small, prepared.folder, prepared.plan, dataset, device)
    training.train(job, World(device=torch.device(device), post=post, stop_requested=stop_requested))
    counted = records[_FIRST:] if len(records) > _FIRST else records[1:]
    images = [prepared.plan.order.rows(record["step"] - 1) for record in counted]
    seconds = [rows / record["images_per_second"] for rows, record in zip(images, counted, strict=True)]
    waited = sum(record["data_wait"] * spent for record, spent in zip(counted, seconds, strict=True))
    return {
        "seconds": seconds,
        "images": sum(images),
        "batch": small.data.batch_size,
        "data_wait": waited / sum(seconds) if seconds else 0.0,
        "samples": plan.samples,
        "steps_per_epoch": plan.steps_per_epoch,
        "total_steps": plan.total_steps,
        "parameters": prepared.parameters,
        "device": device,
        "warnings": told,
        "why": ""
        if seconds
        else f"{plural(len(records), 'step')} done in the time there was, none of them could be counted",
    }
