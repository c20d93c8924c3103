"""Runs that only show whether training works: on few samples again and again, or for two steps."""

from __future__ import annotations

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.splits.limit import Limit
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.session.length.shortened import check_schedule, shortened

__all__ = ["DEV", "dev_run", "limit_of", "sweep_dev_run"]

DEV = "-dev"
"""What the name of a fast_dev_run ends with: its folder is nobody's result, and the next one takes its place."""
_STEPS = 2


def limit_of(run: Run) -> Limit | None:
    """Which samples `train.overfit` or `train.fast_dev_run` leave; None where neither is on."""
    if run.train.overfit != "off":
        return Limit(run.train.overfit, same=True)
    if run.train.fast_dev_run:
        return Limit(_STEPS * run.data.batch_size, same=False)
    return None


def dev_run(run: Run) -> Run:
    """`run` for two steps with an evaluation and a checkpoint after each, under a name of its own, without trackers.

    Its rate is constant: ConfigError where the schedule could not be that of the whole run.
    """
    check_schedule(run)
    values = shortened(run)
    name = run.run.name
    values["run"]["name"] = name if name.endswith(DEV) else f"{name[: 128 - len(DEV)]}{DEV}"
    values["train"].update(duration=f"{_STEPS}st", budget="off", early_stop={"patience": "off"})
    values["checkpoint"]["every"] = "1st"
    if run.evaluate.every != "off":
        values["evaluate"]["every"] = "1st"
    values["track"] = {"log_every": "1st"}
    return config.from_dict(values)


def sweep_dev_run(run: Run) -> None:
    """Delete the folder of an earlier fast_dev_run of that name; what else is there stays."""
    folder = RunFolder.at(run.run.storage, run.run.name)
    text = folder.store.find_bytes(RunFolder.CONFIG)
    if text is not None:
        before = config.load_text(text.decode(), folder.store.describe(RunFolder.CONFIG)).run
        if before.train.fast_dev_run:
            Store(run.run.storage).delete_tree(run.run.name)
