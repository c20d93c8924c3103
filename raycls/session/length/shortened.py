"""A config that is trained for a few steps only: what it counts in the length of the run would begin too late there."""

from __future__ import annotations

import os
from typing import Any

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.plugins import no_exit
from raycls.train.schedules import build_schedule

__all__ = ["apart", "check_schedule", "shortened"]

_STEPS_PER_EPOCH = 10_000
"""More than most runs have: nothing that is counted in epochs is shorter than a step."""


def shortened(run: Run) -> dict[str, Any]:
    """The values of `run` with what it is at its start for as long as it is trained: no later stage, a constant rate.

    Where a stage that is left out is the only one that trains anything, all stays frozen, as at the start. A space to
    search, which could name what is left out, is left out too.
    """
    values = config.to_dict(run)
    stages = {str(time): list(patterns) for time, patterns in run.finetune.stages if not time.value}
    values["finetune"]["unfreeze"] = stages
    if run.finetune.unfreeze and not stages and not run.finetune.freeze:
        values["finetune"]["freeze"] = ["all"]
    values["augment"].update(off_after="off", progressive={})
    values["schedule"], values["search"] = {"name": "constant"}, {}
    return values


def apart(run: Run, storage: str, name: str) -> dict[str, Any]:
    """`shortened`, as a run called `name` below `storage` that nobody follows: not evaluated, and saved at its end."""
    values = shortened(run)
    values["run"].update(storage=storage, name=name)
    if run.data.source.name == "digits" and not os.path.exists(run.data.source.path or ""):
        values["data"]["source"]["path"] = os.path.join(storage, "digits")  # not beside the user's files
    values["train"].update(budget="off", early_stop={"patience": "off"})
    values["evaluate"].update(every="off")
    values["checkpoint"].update(every="100%")
    values["track"] = {"log_every": "1st"}
    return values


@no_exit()
def check_schedule(run: Run) -> None:
    """ConfigError where name or arguments of the schedule are wrong, before the number of steps per epoch is known."""
    total = max(1, run.train.duration.steps(_STEPS_PER_EPOCH))
    build_schedule(run.schedule, steps_per_epoch=_STEPS_PER_EPOCH, total_steps=total)
